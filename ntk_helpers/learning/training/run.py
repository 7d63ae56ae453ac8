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

from ntk_helpers._lib.inputs import check_batch, check_choice, check_key, check_params, check_size, traced
from ntk_helpers.learning.conventions import LOSSES
from ntk_helpers.learning.training._checkpoint import Checkpoint
from ntk_helpers.learning.training._descent import State, advance, value_of
from ntk_helpers.networks.mlp import MLP, as_apply

__all__ = ["Run", "train"]

STATIONS = 51
"""How often, at least, the loop comes back to move the bar and to save a checkpoint."""


class Run(NamedTuple):
    """A training run with R recorded steps. Of an ensemble everything has an axis of members: after R, else
    first.

    A member ends where `stopped` or `diverged` says so, -1 if nowhere; from there on it is recorded as it was
    then.
    """

    params: PyTree
    steps: Int[np.ndarray, " R"]
    loss: Float[np.ndarray, "R ..."]
    """The loss on all points at the recorded steps."""
    losses: Float[np.ndarray, "steps ..."]
    """The loss of each step's batch before the step, the one included at which a run ended; NaN after
    that."""
    distance: PyTree
    r"""$\|\theta_t - \theta_0\|$ of each array of parameters, Frobenius, at the recorded steps."""
    observed: dict[str, Array]
    stopped: Int[np.ndarray, "..."]
    diverged: Int[np.ndarray, "..."]

    def change(self, name: str) -> Float[np.ndarray, "R ..."]:
        r"""The relative change $\|A_t - A_0\|_F / \|A_0\|_F$ of what was observed as `name`; step 0 must be
        recorded."""
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
    y: Float[Array, "n o"],
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
    """Train `f`, an `MLP` or any `apply(params, x)`, for so many `steps` of an optax optimizer.

    `loss` is a squared loss of `loss_scale`, or a function of outputs and targets. At the steps `at`, by
    default the first and the last, the loss, the distance of the weights and each function of the parameters
    in `observe` are recorded: `{"ntk": lambda p: empirical_ntk(net, p, x, output="trace")}`, for example,
    whose relative change `Run.change("ntk")` gives.

    With `batch_size` and `key` each step takes the next batch of a shuffled epoch; points that do not fill a
    batch are left out of it. `stop(step, losses)` ends a run before the step where it is true, given the
    losses (steps,) up to there: `lambda i, losses: losses[i] < 1e-3`.
    `ensemble=True`: `params` have members on their first axis, trained at once, each with batches of its own.
    A run whose loss is not finite, or 10^8 times as large as at first, ends there, with a warning.
    With `checkpoint`, a file, a call that was interrupted goes on when it is made again; what the functions
    do is not compared.

    Shows a progress bar after two seconds. Raises `ValueError` for arrays that do not match or are not
    finite, sizes below 1, steps `at` out of range, an unknown `loss`, a `batch_size` without `key`, and the
    checkpoint of another run.
    """
    name = str(f) if isinstance(f, MLP) else ""
    f, x, y = as_apply(f), check_batch("x", x), check_batch("y", y)
    if not isinstance(optimizer, optax.GradientTransformation):
        raise ValueError(f"optimizer is {optimizer!r}; expected one of optax.")
    steps, at = check_size("steps", steps), _recorded(at, steps)
    size, key = _batch(batch_size, key, len(x))
    start = _start(params, ensemble)
    count = len(jax.tree.leaves(start)[0])
    dtype = _loss_dtype(f, start, x, y, loss)
    observe = _observers(observe, start)
    if (
        stop is not None
        and np.shape(traced("stop", _function("stop", stop), 0, jnp.zeros(steps, dtype))) != ()
    ):
        raise ValueError("stop does not return one truth value, given a step and the losses (steps,).")

    nowhere = -jnp.ones(count, int)
    state = State(
        start, jax.vmap(optimizer.init)(start), jnp.full((count, steps), jnp.nan, dtype), nowhere, nowhere
    )
    look = partial(_look, f, start=start, x=x, y=y, loss=loss, observe=observe)
    shapes = jax.eval_shape(look, start)
    history = jax.tree.map(lambda leaf: np.zeros((len(at), *leaf.shape), leaf.dtype), shapes)
    about = [
        name,
        steps,
        at.tolist(),
        size,
        [n for n, _ in observe],
        loss if isinstance(loss, str) else "",
        str(jax.tree.structure(state.memory)),
    ]
    file = Checkpoint(checkpoint, about, (start, x, y, key))

    def advance_to(state, begin, end):
        return advance(f, state, x, y, key, begin, end, optimizer=optimizer, loss=loss, stop=stop, size=size)

    state, history = _follow(file, state, history, at, steps, advance_to, look)
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


def _follow(file: Checkpoint, state: State, history, at, steps: int, advance_to, look):
    """All steps from where the file left off: recorded `at` some of them, saved, and shown by a bar."""
    done, state, history = file.load((0, state, history))
    stations = np.union1d(at, np.linspace(0, steps, STATIONS).astype(int))
    with tqdm(total=steps, desc="train", unit="step", delay=2, initial=done) as bar:
        for station in stations[(stations > done) | (done == 0)].tolist():
            state = jax.block_until_ready(advance_to(state, done, station))
            if station in at:
                row, seen = np.searchsorted(at, station), look(state.params)
                jax.tree.map(lambda rows, new: rows.__setitem__(row, new), history, seen)
            bar.update(station - done)
            done = station
            file.save((done, state, history), last=station == steps)
    return state, history


@partial(jax.jit, static_argnames=("loss", "observe"))
def _look(f, params, *, start, x, y, loss, observe):
    """What is recorded, of one member after the other."""

    def look(member):
        p, p0 = member
        distance = jax.tree.map(lambda a, b: jnp.sqrt(((a - b) ** 2).sum()), p, p0)
        return {
            "loss": value_of(loss, f(p, x), y),
            "distance": distance,
            "observed": {name: see(p) for name, see in observe},
        }

    return jax.lax.map(look, (params, start))


# --- arguments and results


def _function(name: str, f):
    if not callable(f):
        raise ValueError(f"{name} is {f!r}; expected a function.")
    return f


def _observers(observe, start) -> tuple:
    if observe is not None and not isinstance(observe, Mapping):
        raise ValueError(f"observe is {observe!r}; expected functions of the parameters by name.")
    for name, see in (observe or {}).items():
        traced(
            f"observe[{name!r}]",
            _function(f"observe[{name!r}]", see),
            jax.tree.map(lambda leaf: leaf[0], start),
        )
    return tuple((observe or {}).items())


def _recorded(at, steps: int) -> np.ndarray:
    try:
        found = np.asarray([0, steps] if at is None else list(at))
    except (TypeError, ValueError):
        found = np.zeros(0)
    if (
        found.ndim != 1
        or found.size == 0
        or found.dtype.kind not in "iu"
        or found.min() < 0
        or found.max() > steps
    ):
        raise ValueError(
            f"at is {at!r}; expected whole numbers from 0 to {steps}, the steps after which to record."
        )
    return np.unique(found)


def _batch(batch_size, key, n: int):
    size = n if batch_size is None else check_size("batch_size", batch_size)
    if size > n:
        raise ValueError(f"batch_size is {size}, and there are {n} points; expected no more than that.")
    if batch_size is not None:
        check_key(key)
    elif key is not None:
        raise ValueError(
            "key is given without batch_size; expected both, or neither for all points in every step."
        )
    return size, jax.random.key(0) if key is None else key


def _start(params: PyTree, ensemble: bool) -> PyTree:
    """Parameters with members on their first axis, checked."""
    check_params(params)
    start = jax.tree.map(jnp.asarray if ensemble else lambda leaf: jnp.asarray(leaf)[None], params)
    axes = {leaf.shape[:1] for leaf in jax.tree.leaves(start)}
    if len(axes) != 1 or axes <= {(), (0,)}:
        raise ValueError(
            f"params have first axes {sorted(axes)}; expected arrays, with ensemble=True of one number of members."
        )
    return start


def _loss_dtype(f, params, x, y, loss):
    """The type of the loss, or `ValueError` unless it is one number, and the targets match the outputs."""
    if not callable(loss):
        check_choice("loss", loss, LOSSES)
    outputs = traced("f", f, jax.tree.map(lambda leaf: leaf[0], params), x)
    shape = getattr(outputs, "shape", ())
    if not shape or len(y) != len(x) or (not callable(loss) and y.shape != shape):
        raise ValueError(f"y has shape {y.shape}, and the outputs {shape}; expected the same.")
    value = traced("loss", partial(value_of, loss), outputs, y)
    if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"loss gives {value} for outputs {shape}; expected one real number.")
    return value.dtype


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


def _alone(run: Run) -> Run:
    """The run of the only member."""
    first, second = (
        partial(jax.tree.map, lambda leaf: leaf[0]),
        partial(jax.tree.map, lambda leaf: leaf[:, 0]),
    )
    return Run(
        first(run.params),
        run.steps,
        run.loss[:, 0],
        run.losses[:, 0],
        second(run.distance),
        second(run.observed),
        run.stopped[0],
        run.diverged[0],
    )
