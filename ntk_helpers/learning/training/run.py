r"""Training of one network or of an ensemble, with what happens on the way recorded.

Steps run in one compiled loop, which can end anywhere and be entered again: for a record, a rule that stops,
a checkpoint.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from os import PathLike
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree
from tqdm import tqdm

from ntk_helpers._lib.inputs import check_batch, check_choice, check_size
from ntk_helpers.learning._program import as_program
from ntk_helpers.learning.training import _arguments as arguments
from ntk_helpers.learning.training._checkpoint import Checkpoint
from ntk_helpers.learning.training._descent import State, advance, step_of, value_of
from ntk_helpers.networks.mlp import MLP, as_apply

__all__ = ["Run", "train"]

STATIONS = 51
"""How often, at least, the loop comes back to move the bar and to save a checkpoint."""


class Run(NamedTuple):
    """What `train` returns: the trained parameters, and R recorded steps.

    Of an ensemble everything has an axis of members: after R or the steps where there is one, else first. A
    member ends where `stopped` or `diverged` says so, -1 if nowhere; from there on it is recorded as it was
    then.
    """

    params: PyTree
    steps: Int[np.ndarray, " R"]
    loss: Float[np.ndarray, "R ..."]
    """The loss on all points at the recorded steps."""
    batch_losses: Float[np.ndarray, "steps ..."]
    """The loss on each step's batch just before the step. The step at which a run ended is included; after it
    there is NaN."""
    distance: PyTree
    r"""$\|\theta_t - \theta_0\|$ of each array of parameters, Frobenius, at the recorded steps."""
    observed: dict[str, Array]
    stopped: Int[np.ndarray, "..."]
    diverged: Int[np.ndarray, "..."]

    def change(self, name: str) -> Float[np.ndarray, "R ..."]:
        r"""The relative change $\|A_t - A_0\|_F / \|A_0\|_F$ of what was observed as `name`.

        Raises:

        - `ValueError` for a name that was not observed, and for a run that did not record step 0.
        """
        check_choice("name", name, self.observed)
        if self.steps[0] != 0:
            raise ValueError(f"the first recorded step is {self.steps[0]}; expected 0, to compare with.")
        found = self.observed[name]
        axes = tuple(range(1 + self.stopped.ndim, found.ndim))
        norm = lambda a: np.sqrt((a**2).sum(axes))
        return norm(found - found[:1]) / norm(found[:1])


def train(
    f: MLP | Callable[[PyTree, Array], Array],
    params: PyTree,
    x: Float[Array, "n ..."],
    y: Float[Array, "n o"] | Float[Array, " n"],
    optimizer: optax.GradientTransformation,
    steps: int,
    *,
    loss: str | Callable[[Array, Array], Array],
    at: Iterable[int] | None = None,
    observe: Mapping[str, Callable[[PyTree], Array]] | None = None,
    batch_size: int | None = None,
    key: Array | None = None,
    stop: Callable[[Array, Array], Array] | None = None,
    ensemble: bool = False,
    checkpoint: str | PathLike | None = None,
) -> Run:
    """Train a network, or an ensemble of networks, for so many `steps` of an optax optimizer.

    `f` is an `MLP` or any `apply(params, x)`. `loss` is a squared loss of `loss_scale`, or a function of
    outputs and targets. A squared loss takes targets (n,) for outputs (n, 1), and the other way round.

    - Records: at the steps `at`, by default the first and the last, the run keeps the loss on all points, the
      distance of the weights, and each function of the parameters in `observe`.
    - Batches: with `batch_size` and `key` each step takes the next batch of a shuffled epoch. Points that do
      not fill a batch are left out of the epoch.
    - Ends: `stop(step, losses)` ends a run before the step where it is true, given the losses (steps,) of the
      batches up to there. A run whose loss is not finite, or 10^8 times as large as at first, ends there too,
      with a warning.
    - Ensembles: with `ensemble=True` the parameters have members on their first axis. All are trained at
      once, each on batches of its own.
    - Interruptions: a call with `checkpoint`, a file, that was interrupted goes on when it is made again. The
      file belongs to a run with the same arrays and the same program of a step, so functions may be defined
      anew. Of Python functions that JAX calls back only the names are compared.

    Functions are traced at every call and compiled once: calls that differ only in numbers, as the learning
    rates of a sweep, share what is compiled, even if `optimizer`, `loss`, `stop` and `observe` are new Python
    objects each time. A progress bar appears after two seconds.

    Raises:

    - `ValueError` for arrays that do not match or are not finite;
    - `ValueError` for sizes below 1, steps `at` out of range, and an unknown `loss`;
    - `ValueError` for only one of `batch_size` and `key`;
    - `ValueError` for a function that fails, or returns another shape than is said here;
    - `ValueError` for the checkpoint of another run.

    >>> import optax
    >>> net, x = MLP(2, 16), jnp.eye(3)
    >>> params = net.init(jax.random.key(0), 3)
    >>> see = {"ntk": lambda p: empirical_ntk(net, p, x, output="trace")}
    >>> run = train(net, params, x, jnp.ones(3), optax.sgd(0.1), 20, loss="mean", at=range(21), observe=see)
    >>> run.loss.shape, run.batch_losses.shape, run.change("ntk").shape
    ((21,), (20,), (21,))
    """
    f, x, y = as_apply(f), check_batch("x", x), check_batch("y", y)
    if not isinstance(optimizer, optax.GradientTransformation):
        raise ValueError(f"optimizer is {optimizer!r}; expected one of optax.")
    steps = check_size("steps", steps)
    at = arguments.recorded(at, steps)
    size, key = arguments.sizes(batch_size, key, len(x))
    start = arguments.check_start(params, ensemble)
    member = jax.eval_shape(_first_member, start)
    outputs, y = arguments.check_targets(f, member, x, y, loss)
    dtype = arguments.check_loss(loss, outputs, y)
    arguments.check_stop(stop, jax.ShapeDtypeStruct((steps,), dtype))
    observe = arguments.check_observers(observe, member)

    state = _first(start, optimizer, steps, dtype)
    one, rows = jax.eval_shape(_first_member, state), None if size == len(x) else np.arange(size)
    step = as_program(step_of(f, optimizer, loss, stop), x, y, one, rows, 0)
    look = as_program(_look_of(f, loss, observe), x, y, member, member)
    about = [steps, at.tolist(), size, step.func.digest, look.func.digest]
    file = Checkpoint(checkpoint, about, (state, x, y, key, step, look))

    state, history = _follow(
        file,
        state,
        at,
        steps,
        lambda state, begin, end: advance(step, state, x, y, key, begin, end, size=size),
        lambda state: _seen(look, x, y, state.params, start),
    )
    _warn_of(np.asarray(state.diverged), ensemble)
    run = Run(
        state.params,
        at,
        history["loss"],
        np.asarray(state.losses).T,
        history["distance"],
        history["observed"],
        np.asarray(state.stopped),
        np.asarray(state.diverged),
    )
    return run if ensemble else _alone(run)


def _first(start: PyTree, optimizer, steps: int, dtype) -> State:
    count = len(jax.tree.leaves(start)[0])
    losses, nowhere = jnp.full((count, steps), jnp.nan, dtype), -jnp.ones(count, int)
    return State(start, jax.vmap(optimizer.init)(start), losses, nowhere, nowhere)


def _look_of(f, loss, observe: dict):
    """What is recorded of one member, as a function of arrays alone."""

    def look(x, y, p, p0):
        distance = jax.tree.map(lambda a, b: jnp.sqrt(((a - b) ** 2).sum()), p, p0)
        observed = {name: see(p) for name, see in observe.items()}
        return {"loss": value_of(loss, f(p, x), y), "distance": distance, "observed": observed}

    return look


@jax.jit
def _seen(look, x, y, params, start):
    """What is recorded, of one member after the other."""
    return jax.lax.map(lambda pair: look(x, y, *pair), (params, start))


def _follow(file: Checkpoint, state: State, at, steps: int, advance_to, look):
    """All steps from where the file left off: recorded `at` some of them, saved, and shown by a bar."""
    shapes = jax.eval_shape(look, state)
    history = jax.tree.map(lambda leaf: np.zeros((len(at), *leaf.shape), leaf.dtype), shapes)
    done, state, history = file.load((0, state, history))
    stations = np.union1d(at, np.linspace(0, steps, STATIONS).astype(int))
    with tqdm(total=steps, desc="train", unit="step", delay=2, initial=done) as bar:
        for station in stations[(stations > done) | (done == 0)].tolist():
            if station > done:
                state = jax.block_until_ready(advance_to(state, done, station))
            if station in at:
                _write(history, np.searchsorted(at, station), look(state))
            bar.update(station - done)
            done = station
            file.save((done, state, history), last=station == steps)
    return state, history


def _write(history: PyTree, row: int, seen: PyTree) -> None:
    jax.tree.map(lambda rows, new: rows.__setitem__(row, new), history, seen)


def _warn_of(diverged: np.ndarray, ensemble: bool) -> None:
    (lost,) = np.nonzero(diverged >= 0)
    if lost.size:
        who = (
            f"{lost.size} of {diverged.size} members, the first of them {lost[0]}," if ensemble else "the run"
        )
        warnings.warn(
            f"{who} diverged at step {diverged[lost[0]]}: its parameters are those of that step.",
            stacklevel=3,
        )


@jax.jit
def _first_member(members: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[0], members)


def _alone(run: Run) -> Run:
    """The run of the only member."""
    second = partial(jax.tree.map, lambda leaf: leaf[:, 0])
    return Run(
        _first_member(run.params),
        run.steps,
        run.loss[:, 0],
        run.batch_losses[:, 0],
        second(run.distance),
        second(run.observed),
        run.stopped[0],
        run.diverged[0],
    )
