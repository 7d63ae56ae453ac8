"""Training against closed forms and plain loops of optax, ensembles against single runs, records, ends, and
runs that go on."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compilations import compilations

from ntk_helpers import MLP, empirical_ntk, kernel_dynamics, linearize, max_learning_rate
from ntk_helpers.learning.training import _checkpoint, _descent, train
from ntk_helpers.learning.training import run as training

NET = MLP(2, 8, 2, "tanh", sigma_b2=0.1)
APPLY = jax.jit(NET.apply)
X, Y = np.random.default_rng(0).normal(size=(7, 3)), np.random.default_rng(1).normal(size=(7, 2))
PARAMS = NET.init(jax.random.key(0), 3)
MEMBERS = jax.vmap(lambda key: NET.init(key, 3))(jax.random.split(jax.random.key(1), 4))
SGD, ADAM = optax.sgd(0.3, 0.5), optax.adam(0.03)
KEY = jax.random.key(7)


def first_weights(params):
    return params[0]["w"]


def mean_squares(params, x, y):
    return ((NET.apply(params, x) - y) ** 2).mean()


def member(tree, k):
    return jax.tree.map(lambda leaf: leaf[k], tree)


def close(a, b, atol=1e-10):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=0, atol=atol), a, b)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def batch(key, i, size):
    """The points of step i: the next of the epoch's permutation, by definition."""
    each = len(X) // size
    order = jax.random.permutation(jax.random.fold_in(key, i // each), len(X))
    return np.asarray(order)[i % each * size :][:size]


@partial(jax.jit, static_argnums=(0, 1))
def plain_step(objective, optimizer, params, memory, x, y):
    value, gradient = jax.value_and_grad(objective)(params, x, y)
    updates, memory = optimizer.update(gradient, memory, params)
    return value, optax.apply_updates(params, updates), memory


def plain_loop(objective, params, optimizer, steps, rows=lambda i: slice(None)):
    """Parameters before each step and after the last, and the loss of each step's batch."""
    memory, path, losses = optimizer.init(params), [params], []
    for i in range(steps):
        value, params, memory = plain_step(objective, optimizer, params, memory, X[rows(i)], Y[rows(i)])
        path.append(params)
        losses.append(value)
    return path, losses


# --- against closed forms and plain loops


@pytest.mark.parametrize("loss", ["sum_half", "mean_half", "mean"])
@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_the_linear_model_follows_its_closed_form(momentum, loss):
    theta = np.asarray(empirical_ntk(NET, PARAMS, X))
    rate = 0.5 * max_learning_rate(theta, loss, momentum=momentum)
    at, model = [0, 1, 2, 17, 60], linearize(NET, PARAMS)
    seen = {"outputs": lambda p: model(p, X)}
    run = train(model, PARAMS, X, Y, optax.sgd(rate, momentum or None), 60, loss=loss, at=at, observe=seen)
    dynamics = kernel_dynamics(theta, Y, loss=loss, learning_rate=rate, momentum=momentum)
    outputs = dynamics.train(at, APPLY(PARAMS, X))
    close(run.observed["outputs"], outputs, 1e-8)
    close(run.loss, dynamics.scale / 2 * ((outputs - Y) ** 2).sum((1, 2)), 1e-8)
    close(run.batch_losses[at[:-1]], run.loss[:-1])


@pytest.mark.parametrize("name, size", [("momentum", None), ("momentum", 3), ("adam", 2), ("adam", 7)])
def test_equals_a_plain_loop_on_the_same_batches(name, size):
    optimizer, key = {"momentum": SGD, "adam": ADAM}[name], jax.random.fold_in(KEY, 0)
    rows = lambda i: slice(None) if size in (None, 7) else batch(key, i, size)
    path, losses = plain_loop(mean_squares, PARAMS, optimizer, 10, rows)
    run = train(
        NET,
        PARAMS,
        X,
        Y,
        optimizer,
        10,
        loss="mean",
        batch_size=size,
        key=None if size is None else KEY,
        at=range(11),
        observe={"w": first_weights},
    )
    close(run.batch_losses, np.array(losses))
    close(run.params, path[-1])
    close(run.observed["w"], np.stack([p[0]["w"] for p in path]))
    close(run.loss, np.array([((APPLY(p, X) - Y) ** 2).mean() for p in path]))
    same(run.steps, np.arange(11))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_an_epoch_sees_every_point_at_most_once_and_epochs_differ(size):
    """The points of a batch, by the loss of a model that tells them apart: the sum of their powers of two."""
    each = 7 // size
    run = train(
        lambda p, x: p * x,
        np.ones(1),
        2.0 ** np.arange(7)[:, None],
        np.zeros(7),
        optax.sgd(0.0),
        4 * each,
        loss=lambda f, y: f.sum(),
        batch_size=size,
        key=KEY,
    )
    steps = [[k for k in range(7) if int(total) >> k & 1] for total in run.batch_losses]
    epochs = [np.concatenate(steps[k * each : (k + 1) * each]) for k in range(4)]
    assert all(len(np.unique(epoch)) == each * size for epoch in epochs)
    assert size == 7 or len({tuple(epoch) for epoch in epochs}) == 4


def test_members_have_batches_of_their_own():
    """Of four equal networks no two see the same, and the first trains as it would alone."""
    equal = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), PARAMS)
    run = train(NET, equal, X, Y, SGD, 6, loss="mean", batch_size=3, key=KEY, ensemble=True)
    assert len({tuple(column) for column in run.batch_losses.T.round(12)}) == 4
    close(
        run.batch_losses[:, 0],
        train(NET, PARAMS, X, Y, SGD, 6, loss="mean", batch_size=3, key=KEY).batch_losses,
    )
    for k in range(4):
        rows = partial(batch, jax.random.fold_in(KEY, k), size=3)
        close(run.batch_losses[:, k], plain_loop(mean_squares, PARAMS, SGD, 6, rows)[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "group, optimizer", [(4, SGD), (1, ADAM), (2, ADAM)], ids=["momentum-together", "adam-1", "adam-2"]
)
def test_members_train_as_they_would_alone(optimizer, group, monkeypatch):
    monkeypatch.setattr(_descent, "GROUP_BYTES", group * sum(leaf.nbytes for leaf in jax.tree.leaves(PARAMS)))
    jax.clear_caches()
    assert _descent._group(MEMBERS, 4) == group
    settings = dict(loss="mean_half", at=[0, 3, 8], observe={"w": first_weights})
    run = train(NET, MEMBERS, X, Y, optimizer, 8, ensemble=True, **settings)
    for k in (0, 1, 3):
        alone = train(NET, member(MEMBERS, k), X, Y, optimizer, 8, **settings)
        close(member(run.params, k), alone.params)
        close(
            (run.loss[:, k], run.batch_losses[:, k], run.observed["w"][:, k]),
            (alone.loss, alone.batch_losses, alone.observed["w"]),
        )
        jax.tree.map(lambda all_, one, k=k: close(all_[:, k], one), run.distance, alone.distance)
        close(run.change("w")[:, k], alone.change("w"))


def test_groups_divide_the_members(monkeypatch):
    nets = [np.zeros((12, 10))]
    for bytes_, expected in (
        (1, 1),
        (80, 1),
        (160, 2),
        (5 * 80, 4),
        (11 * 80, 6),
        (12 * 80, 12),
        (10**9, 12),
    ):
        monkeypatch.setattr(_descent, "GROUP_BYTES", bytes_)
        assert _descent._group(nets, 12) == expected


# --- compilations

RULES = {
    "sgd": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, 0.9 * rate, nesterov=True),
    "adam": lambda rate: optax.adam(rate, b1=1 - rate),
    "adamw": lambda rate: optax.adamw(rate, weight_decay=rate),
    "schedule": lambda rate: optax.sgd(optax.warmup_cosine_decay_schedule(0.0, rate, 3, 10)),
    "clipped": lambda rate: optax.chain(optax.clip_by_global_norm(10 * rate), optax.rmsprop(rate)),
    "injected": lambda rate: optax.inject_hyperparams(optax.adam)(rate),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_a_sweep_of_learning_rates_compiles_once(name):
    fit = lambda rate: train(NET, PARAMS, X, Y, RULES[name](rate), 6, loss="mean")
    fit(0.1)
    with compilations() as made:
        runs = [fit(rate) for rate in (0.2, 0.03)]
    assert made == []
    for run, rate in zip(runs, (0.2, 0.03)):
        path, losses = plain_loop(mean_squares, PARAMS, RULES[name](rate), 6)
        # optax takes a schedule at a step in float32, whose rounding is the compiler's.
        atol = 1e-7 if name == "schedule" else 1e-10
        close((run.params, run.batch_losses), (path[-1], np.array(losses)), atol)


def test_functions_that_are_defined_anew_compile_once():
    def fit(scale, level, targets):
        @jax.jit
        def inner(f):
            return scale * f

        net = MLP(2, 8, 2, "tanh", sigma_w2=scale, sigma_b2=0.1)
        return train(
            lambda p, x: net.apply(p, x) + targets,
            PARAMS,
            X,
            Y,
            SGD,
            9,
            loss=lambda f, y: (scale * (f - y) ** 2).mean() + jnp.abs(f - targets).mean(),
            stop=lambda i, losses: losses[i] < level,
            observe={"w": lambda p: scale * p[0]["w"]},
        )

    fit(1.0, 0.0, Y)
    with compilations() as made:
        run = fit(2.0, 1e9, 3 * Y)
    assert made == [] and run.stopped == 0
    value = lambda f: (2 * (f - Y) ** 2).mean() + np.abs(f - 3 * Y).mean()
    start = MLP(2, 8, 2, "tanh", sigma_w2=2.0, sigma_b2=0.1).apply(PARAMS, X) + 3 * Y
    close(run.loss[0], value(start))
    close(run.observed["w"][0], 2 * PARAMS[0]["w"])


def test_a_new_linear_model_compiles_once():
    fit = lambda start: train(linearize(NET, start), start, X, Y, SGD, 5, loss="mean")
    other = member(MEMBERS, 2)
    fit(PARAMS)
    with compilations() as made:
        run = fit(other)
    assert made == []
    model = linearize(NET, other)
    objective = lambda p, x, y: ((model(p, x) - y) ** 2).mean()
    close(run.batch_losses, np.array(plain_loop(objective, other, SGD, 5)[1]))


def inner_constant(value):
    return jax.jit(lambda f, y: ((f - y) ** 2).mean() + np.full(3, value).sum() * (f[0, 0] + value * f).sum())


def called_back(value):
    call = lambda f: np.asarray(value * f)
    see = lambda f: jax.pure_callback(call, jax.ShapeDtypeStruct(f.shape, f.dtype), f)
    return lambda f, y: ((f - y) ** 2).mean() + jax.lax.stop_gradient(see(jax.lax.stop_gradient(f))).sum()


@pytest.mark.parametrize("make", [inner_constant, called_back])
def test_numbers_that_cannot_be_seen_from_outside_count(make):
    """Arrays of an inner program, and functions of the same name that are called back."""
    for value in (1.0, 2.0):
        loss = make(value)
        run = train(NET, PARAMS, X, Y, SGD, 2, loss=loss)
        close(run.loss[0], loss(NET.apply(PARAMS, X), Y))


def test_the_order_of_an_epoch_is_drawn_once_for_it(monkeypatch):
    """Sorting all points at every step made a step of 32 of 20,000 points take 29 ms."""
    drawn, permutation = [], jax.random.permutation

    def counted(key, n):
        jax.debug.callback(lambda: drawn.append(1))
        return permutation(key, n)

    jax.clear_caches()
    monkeypatch.setattr(training, "STATIONS", 2)
    monkeypatch.setattr(jax.random, "permutation", counted)
    train(NET, PARAMS, X, Y, SGD, 42, loss="mean", batch_size=1, key=KEY, at=[21])
    jax.effects_barrier()
    assert len(drawn) == 6  # epochs of seven steps, entered at their starts
    jax.clear_caches()


# --- losses, types, shapes


def test_cross_entropy_of_integer_labels():
    labels = np.array([0, 1, 1, 0, 1, 0, 0])
    loss = lambda f, y: optax.softmax_cross_entropy_with_integer_labels(f, y).mean()
    run = train(NET, PARAMS, X, labels, SGD, 30, loss=loss, at=range(31))
    value = lambda p: loss(NET.apply(p, X), labels)
    first = jax.tree.map(lambda p, slope: p - 0.3 * slope, PARAMS, jax.grad(value)(PARAMS))
    close(run.loss[:2], np.array([value(PARAMS), value(first)]))
    assert run.loss[-1] < 0.6 * run.loss[0] and run.batch_losses.shape == (30,)


def test_single_precision_stays_single():
    single = jax.tree.map(lambda leaf: leaf.astype("float32"), MEMBERS)
    x, y = X.astype("float32"), Y.astype("float32")
    run = train(NET, single, x, y, ADAM, 5, loss="mean", ensemble=True)
    assert all(
        leaf.dtype == np.float32
        for leaf in jax.tree.leaves((run.params, run.loss, run.batch_losses, run.distance))
    )
    close(run.params, train(NET, MEMBERS, X, Y, ADAM, 5, loss="mean", ensemble=True).params, 1e-4)
    mixed = train(NET, single, X, Y, ADAM, 2, loss="mean", ensemble=True)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(mixed.params))


@pytest.mark.parametrize("outputs, targets", [((7,), (7, 1)), ((7, 1), (7,)), ((7,), (7,)), ((7, 1), (7, 1))])
def test_one_output_with_or_without_its_axis(outputs, targets):
    f, y = lambda p, x: jnp.tanh(x @ p).reshape(outputs), Y[:, 0]
    run = train(f, np.ones(3), X, y.reshape(targets), optax.sgd(0.1), 3, loss="mean")
    plain = lambda p, x, y: ((jnp.tanh(x @ p) - y[:, 0]) ** 2).mean()
    path, losses = plain_loop(plain, jnp.ones(3), optax.sgd(0.1), 3)
    close((run.params, run.batch_losses), (path[-1], np.array(losses)))


@pytest.mark.parametrize("loss, factor", [("sum_half", 0.5), ("mean_half", 0.5 / 42), ("mean", 1 / 42)])
def test_outputs_of_any_shape(loss, factor):
    f, y = lambda w, x: jnp.einsum("ni,iab->nab", x, w), np.ones((7, 2, 3))
    run = train(f, np.zeros((3, 2, 3)), X, y, optax.sgd(0.01), 1, loss=loss)
    assert run.loss[0] == pytest.approx(42 * factor)


# --- what is recorded


def test_records_at_the_asked_steps():
    at, calls = [9, 0, 4, 4], {"w": first_weights, "norm": lambda p: (p[1]["b"] ** 2).sum()}
    run = train(NET, PARAMS, X, Y, SGD, 9, loss="mean", at=at, observe=calls)
    path, _ = plain_loop(mean_squares, PARAMS, SGD, 9)
    same(run.steps, [0, 4, 9])
    kept = [path[k] for k in (0, 4, 9)]
    close(run.observed["norm"], np.array([(p[1]["b"] ** 2).sum() for p in kept]))
    close(run.distance[0]["w"], np.array([np.linalg.norm(p[0]["w"] - PARAMS[0]["w"]) for p in kept]))
    assert jax.tree.structure(run.distance) == jax.tree.structure(PARAMS) and run.loss.shape == (3,)
    w = np.stack([p[0]["w"] for p in kept])
    close(run.change("w"), np.linalg.norm(w - w[0], axis=(1, 2)) / np.linalg.norm(w[0]))
    assert (run.stopped, run.diverged) == (-1, -1)
    default = train(NET, PARAMS, X, Y, SGD, 9, loss="mean")
    same(default.steps, [0, 9])
    same(train(NET, PARAMS, X, Y, SGD, 9, loss="mean", at=iter([3])).loss.shape, (1,))


def test_a_change_needs_its_name_and_its_start():
    run = train(NET, PARAMS, X, Y, SGD, 2, loss="mean", at=[1, 2], observe={"w": first_weights})
    with pytest.raises(ValueError, match="the first recorded step is 1; expected 0"):
        run.change("w")
    with pytest.raises(ValueError, match="name is 'v'; expected one of 'w'"):
        run.change("v")


# --- ends


def test_a_rule_stops_each_member_where_it_says():
    """Just before the first step whose loss is below the level; the parameters are those that gave it."""
    settings = dict(loss="mean", at=range(41), ensemble=True)
    free = train(NET, MEMBERS, X, Y, SGD, 40, **settings)
    level = float(np.sort(free.batch_losses.min(0))[1] + 1e-9)
    run = train(NET, MEMBERS, X, Y, SGD, 40, stop=lambda i, losses: losses[i] < level, **settings)
    for k in range(4):
        below = np.nonzero(free.batch_losses[:, k] < level)[0]
        assert run.stopped[k] == (below[0] if below.size else -1)
        end = below[0] if below.size else 40
        close(run.batch_losses[: end + 1, k][:40], free.batch_losses[: end + 1, k])
        assert np.isnan(run.batch_losses[end + 1 :, k]).all()
        close(run.loss[: end + 1, k], free.loss[: end + 1, k])
        same(run.loss[end:, k], np.repeat(run.loss[end, k], 41 - end))
    assert (run.stopped >= 0).any() and (run.stopped < 0).any() and (run.diverged == -1).all()


def test_a_rule_may_look_back():
    run = train(
        NET, PARAMS, X, Y, SGD, 20, loss="mean", stop=lambda i, losses: (i >= 3) & (losses[i] < losses[0])
    )
    assert run.stopped == 3
    path, _ = plain_loop(mean_squares, PARAMS, SGD, 3)
    close(run.params, path[-1])
    assert train(NET, PARAMS, X, Y, SGD, 5, loss="mean", stop=lambda i, losses: True).stopped == 0


def test_a_member_that_diverges_is_told_of_and_leaves_the_others_alone():
    model = lambda p, x: p["rate"] * (x @ p["w"])
    members = {"w": np.random.default_rng(3).normal(size=(3, 3, 2)), "rate": np.array([0.3, 40.0, 0.2])}
    settings = dict(loss="mean", at=range(31))
    optimizer = optax.sgd(0.1)
    with pytest.warns(
        UserWarning, match="1 of 3 members, the first of them 1, diverged at step [0-9]+: its parameters are"
    ):
        run = train(model, members, X, Y, optimizer, 30, ensemble=True, **settings)
    same(run.diverged[[0, 2]], [-1, -1])
    end = int(run.diverged[1])
    assert 0 < end < 30 and not run.batch_losses[end, 1] <= 1e8 * (1 + run.batch_losses[0, 1])
    assert (
        np.isnan(run.batch_losses[end + 1 :, 1]).all()
        and (run.batch_losses[:end, 1] <= 1e8 * (1 + run.batch_losses[0, 1])).all()
    )
    same(run.distance["w"][end:, 1], np.repeat(run.distance["w"][end, 1], 31 - end))
    for k in (0, 2):
        close(
            run.batch_losses[:, k],
            train(model, member(members, k), X, Y, optimizer, 30, **settings).batch_losses,
        )
    with pytest.warns(UserWarning, match=f"the run diverged at step {end}"):
        assert train(model, member(members, 1), X, Y, optimizer, 30, **settings).diverged == end


def test_a_loss_that_is_not_a_number_ends_the_run_with_finite_parameters():
    loss = lambda f, y: jnp.where(f[0, 0] > 0.5, jnp.nan, -f[0, 0])
    with pytest.warns(UserWarning, match="the run diverged at step 6"):
        run = train(lambda w, x: w * jnp.ones_like(x), np.zeros(()), X, Y, optax.sgd(0.1), 20, loss=loss)
    assert run.diverged == 6 and run.params == pytest.approx(0.6) and np.isnan(run.batch_losses[6:]).all()


# --- files


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run"


class Interrupted(training.Checkpoint):
    """A checkpoint whose process is interrupted at its tenth save, just after it."""

    saves = 0

    def save(self, tree, last):
        super().save(tree, last)
        self.saves += 1
        if self.saves == 10:
            raise KeyboardInterrupt


LONG = dict(x=X, y=Y, steps=100, loss="mean", at=[0, 5, 50, 100], observe={"w": first_weights})


def looks(monkeypatch):
    """How many stretches of steps were made from here on."""
    made, advance = [], _descent.advance
    monkeypatch.setattr(training, "advance", lambda *a, **k: made.append(a[5:7]) or advance(*a, **k))
    return made


@pytest.mark.parametrize(
    "ensemble, more",
    [(False, {}), (True, {"batch_size": 3, "key": KEY}), (True, {"stop": lambda i, losses: losses[i] < 0.3})],
    ids=["one", "batches", "stop"],
)
def test_an_interrupted_run_goes_on_bit_for_bit(path, ensemble, more, monkeypatch):
    call = partial(
        train, NET, MEMBERS if ensemble else PARAMS, optimizer=ADAM, ensemble=ensemble, **LONG, **more
    )
    whole = call()
    monkeypatch.setattr(_checkpoint, "SECONDS", 0)
    with monkeypatch.context() as interrupted, pytest.raises(KeyboardInterrupt):
        interrupted.setattr(training, "Checkpoint", Interrupted)
        call(checkpoint=path)
    made = looks(monkeypatch)
    same(call(checkpoint=path), whole)
    assert made[0][0] > 0 and made[-1][1] == 100
    made.clear()
    before = path.stat().st_mtime_ns
    same(call(checkpoint=str(path)), whole)
    assert not made and path.stat().st_mtime_ns == before and not path.with_name("run.new").exists()


def test_an_interrupted_record_keeps_what_was_saved(path, monkeypatch):
    """Interrupted while it records step 50: saved at 48, from where the next call goes on."""
    monkeypatch.setattr(_checkpoint, "SECONDS", 0)
    made, look = looks(monkeypatch), training._seen

    def interrupted(*arguments):
        if made and made[-1][1] == 50:
            raise KeyboardInterrupt
        return look(*arguments)

    with monkeypatch.context() as once, pytest.raises(KeyboardInterrupt):
        once.setattr(training, "_seen", interrupted)
        train(NET, PARAMS, optimizer=ADAM, checkpoint=path, **LONG)
    made.clear()
    same(
        train(NET, PARAMS, optimizer=ADAM, checkpoint=path, **LONG),
        train(NET, PARAMS, optimizer=ADAM, **LONG),
    )
    assert made[0] == (48, 50)


def test_a_file_is_written_at_the_end_alone_within_ten_seconds(path, monkeypatch):
    saved, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: saved.append(paths) or replace(*paths))
    train(NET, PARAMS, optimizer=SGD, checkpoint=path, **LONG)
    assert len(saved) == 1


@pytest.mark.parametrize(
    "change",
    [
        dict(x=X + 1),
        dict(y=Y + 1),
        dict(y=Y.astype("float32")),
        dict(steps=101),
        dict(loss="mean_half"),
        dict(loss=lambda f, y: (f - y).mean()),
        dict(at=[0, 100]),
        dict(observe={}),
        dict(batch_size=2, key=KEY),
        dict(optimizer=ADAM),
        dict(optimizer=optax.sgd(0.31, 0.5)),
        dict(optimizer=optax.sgd(0.3, 0.51)),
        dict(optimizer=optax.sgd(0.3, 0.5, nesterov=True)),
        dict(optimizer=optax.inject_hyperparams(optax.sgd)(0.3, 0.5)),
        dict(stop=lambda i, losses: losses[i] < 0.1),
        dict(params=member(MEMBERS, 0)),
        dict(f=MLP(2, 8, 2, "erf", sigma_b2=0.1)),
    ],
    ids=lambda change: "-".join(change),
)
def test_the_file_of_another_run_is_refused(path, change):
    good = dict(f=NET, params=PARAMS, optimizer=SGD, **LONG)
    train(**good, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match="is not a checkpoint of this run; expected the same arguments, or another path"
    ):
        train(**good | change, checkpoint=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "name, one, other",
    [
        ("loss", lambda f, y: 2 * ((f - y) ** 2).mean(), lambda f, y: 3 * ((f - y) ** 2).mean()),
        ("loss", lambda f, y: ((f - y) ** 2).mean(), lambda f, y: jnp.abs(f - y).mean()),
        (
            "loss",
            jax.jit(lambda f, y: ((f - Y) ** 2).mean()),
            jax.jit(lambda f, y: ((f - 2 * Y) ** 2).mean()),
        ),
        ("stop", lambda i, losses: losses[i] < 0.01, lambda i, losses: losses[i] < 0.02),
        ("f", lambda p, x: NET.apply(p, x), lambda p, x: 2 * NET.apply(p, x)),
        ("observe", {"a": lambda p: p[0]["w"]}, {"a": lambda p: 2 * p[0]["w"]}),
        ("optimizer", optax.sgd(optax.cosine_decay_schedule(0.3, 10)), optax.sgd(lambda i: 0.3 / (1 + i))),
    ],
    ids=["factor", "power", "inner-array", "level", "f", "observe", "schedule"],
)
def test_what_functions_do_is_compared_too(path, name, one, other):
    good = dict(f=NET, params=PARAMS, optimizer=SGD, **LONG)
    first = train(**good | {name: one}, checkpoint=path)
    with pytest.raises(ValueError, match="is not a checkpoint of this run"):
        train(**good | {name: other}, checkpoint=path)
    same(train(**good | {name: one}, checkpoint=path), first)


def test_a_file_of_something_else_is_refused_and_kept(path):
    path.write_bytes(b"\xff precious \n data")
    with pytest.raises(ValueError, match="is not a checkpoint of this run"):
        train(NET, PARAMS, optimizer=SGD, checkpoint=path, **LONG)
    assert path.read_bytes() == b"\xff precious \n data"


KILLED = """
import itertools, os, signal, sys, jax, jax.numpy as jnp, numpy as np, optax
from ntk_helpers.learning.training import _checkpoint
from ntk_helpers.learning.training import train
_checkpoint.SECONDS = 0
last, count = int(sys.argv[2]), itertools.count(1)
def step(_):
    if next(count) == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.zeros(())
zero = lambda: jax.lax.stop_gradient(jax.pure_callback(step, jax.ShapeDtypeStruct((), float), 0.0))
loss = lambda f, y: ((f - y) ** 2).mean() + zero()
x = np.random.default_rng(0).normal(size=(7, 3))
f, w, file = lambda p, x: jnp.tanh(x @ p), np.ones((3, 1)), sys.argv[1] or None
run = train(f, w, x, x[:, :1], optax.adam(0.1), 150, loss=loss, checkpoint=file)
sys.stdout.buffer.write(run.batch_losses.tobytes())
"""


def python(*arguments):
    environment = os.environ | {
        "JAX_ENABLE_X64": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "JAX_PLATFORMS": "cpu",
    }
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, *map(str, arguments)], env=environment, stdout=subprocess.PIPE
    )


@pytest.mark.slow
def test_a_killed_run_goes_on(path):
    whole, killed = python("", 0), python(path, 20)
    assert killed.communicate() == (b"", None) and killed.returncode == -signal.SIGKILL
    assert path.exists()
    again = python(path, 0)
    expected, found = (process.communicate()[0] for process in (whole, again))
    assert len(expected) == 8 * 150 and found == expected


# --- the bar


@pytest.mark.parametrize("steps, at", [(1, None), (7, [3]), (120, [0, 1, 64, 119])])
def test_the_bar_counts_all_steps(bars, steps, at):
    train(NET, PARAMS, X, Y, SGD, steps, loss="mean", at=at)
    assert [(bar.desc, bar.n, bar.total, bar.unit) for bar in bars] == [("train", steps, steps, "step")]


def test_the_bar_goes_on_where_the_run_was_interrupted(bars, path, monkeypatch):
    monkeypatch.setattr(_checkpoint, "SECONDS", 0)
    with monkeypatch.context() as interrupted, pytest.raises(KeyboardInterrupt):
        interrupted.setattr(training, "Checkpoint", Interrupted)
        train(NET, PARAMS, optimizer=SGD, checkpoint=path, **LONG)
    train(NET, PARAMS, optimizer=SGD, checkpoint=path, **LONG)
    assert 0 < bars[1].initial < 100 and bars[1].n == 100
