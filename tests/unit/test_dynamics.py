"""Training under a constant kernel against explicit descent, neural-tangents, ODE solvers, sampled functions,
and its limits."""

from collections import namedtuple
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import expm, hilbert

from ntk_helpers import (
    MLP,
    empirical_ntk,
    kernel_dynamics,
    kernel_flow,
    linearize,
    loss_scale,
    max_learning_rate,
    nngp,
    ntk,
)
from ntk_helpers._lib.old_jax import enable_x64
from ntk_helpers.learning import critical_learning_rate, steps_to_time
from ntk_helpers.learning.conventions import LOSSES
from ntk_helpers.neural_tangents_compat import nt

N, M = 6, 3
X, X_TEST = np.random.default_rng(0).normal(size=(N, 4)), np.random.default_rng(1).normal(size=(M, 4))
WIDE = MLP(3, 1, activation="erf", sigma_w2=1.7, sigma_b2=0.1)
THETA, CROSS = (np.asarray(ntk(WIDE, X, other)) for other in (X, X_TEST))
CROSS = CROSS.T
TIMES = np.array([0.0, 0.3, 1.0, 7.0, 60.0])


def targets(outputs, seed=2):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=(rows, outputs)) for rows in (N, N, M))


def blocks(outputs, seed=3):
    """A full kernel of training points, and of test points with them, in which outputs are coupled."""
    x, rng = np.concatenate([X, X_TEST]), np.random.default_rng(seed)
    features = [
        np.tanh(x @ rng.normal(size=(4, 40)))[:, None, :] * rng.normal(size=(outputs, 40)) for _ in range(2)
    ]
    whole = sum(np.einsum("iap,jbp->ijab", feature, feature) for feature in features) / 40
    return whole[:N, :N], whole[N:, :N]


def kernels(kind, outputs):
    return (THETA, CROSS) if kind == "shared" else blocks(outputs)


def matrix(theta, outputs):
    """(m, n) or (m, n, o, o) as (m o, n o), by definition."""
    full = np.einsum("ij,ab->ijab", theta, np.eye(outputs)) if np.ndim(theta) == 2 else theta
    return np.array(
        [
            [full[i, j, a, b] for j in range(full.shape[1]) for b in range(outputs)]
            for i in range(full.shape[0])
            for a in range(outputs)
        ]
    )


def close(a, b, atol=1e-8):
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)


# --- steps, against explicit descent on parameters


@cache
def descent(outputs, momentum):
    """Outputs of the linear model before each of 41 steps, its kernels, and a compiled run for each column of
    targets."""
    net = MLP(2, 7, outputs, "tanh", sigma_b2=0.2)
    params = net.init(jax.random.key(0), 4)
    model = linearize(net, params)

    def run(y, scale, ridge, rate):
        def objective(p):
            apart = jax.tree.map(lambda a, b: ((a - b) ** 2).sum(), p, params)
            return scale / 2 * (((model(p, X) - y) ** 2).sum() + ridge * sum(jax.tree.leaves(apart)))

        def step(carry, _):
            updates, memory = optimizer.update(jax.grad(objective)(carry[0]), carry[1])
            return (optax.apply_updates(carry[0], updates), memory), (
                model(carry[0], X),
                model(carry[0], X_TEST),
            )

        optimizer = optax.sgd(rate, momentum or None)
        return jax.lax.scan(step, (params, optimizer.init(params)), None, 41)[1]

    kernels = jax.jit(lambda p: [empirical_ntk(net, p, x, X) for x in (X, X_TEST)])(params)
    return *map(np.asarray, kernels), jax.jit(jax.vmap(run, (0, None, None, None)))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("outputs, kind", [(1, "shared"), (1, "full"), (3, "full"), (3, "shared")])
def test_steps_are_those_of_optax_on_the_linear_model(outputs, kind, ridge, momentum, loss):
    """For a shared kernel the network of one output is trained once for each column of the targets."""
    y = targets(outputs)[0]
    theta, cross, run = descent(outputs if kind == "full" else 1, momentum)
    if kind == "shared":
        theta, cross = theta[..., 0, 0], cross[..., 0, 0]
    scale = {"sum_half": 1.0, "mean_half": 1 / y.size, "mean": 2 / y.size}[loss]
    rate = 0.4 / (scale * (np.linalg.eigvalsh(matrix(theta, outputs))[-1] + ridge))
    found = run(y[None] if kind == "full" else y.T[:, :, None], scale, ridge, rate)
    train, test = (np.concatenate(part, -1) for part in found)
    dynamics = kernel_dynamics(theta, y, loss=loss, learning_rate=rate, momentum=momentum, ridge=ridge)
    steps = [0, 1, 2, 7, 40]
    close(dynamics.train(steps, train[0]), train[steps])
    close(dynamics.test(steps, train[0], test[0], cross), test[steps])
    close(dynamics.train(7, train[0]), train[7])


def test_a_full_kernel_of_one_output_is_a_shared_one():
    y, f0, f0_test = targets(1)
    shared, full = (
        kernel_dynamics(THETA, y, loss="mean"),
        kernel_dynamics(THETA[..., None, None], y, loss="mean"),
    )
    close(
        full.test(TIMES, f0, f0_test, CROSS[..., None, None]), shared.test(TIMES, f0, f0_test, CROSS), 1e-12
    )
    covariances = nngp(WIDE, X), nngp(WIDE, X_TEST, X), nngp(WIDE, X_TEST)
    ours, theirs = (
        full.distribution(1.0, CROSS[..., None, None], *covariances),
        shared.distribution(1.0, CROSS, *covariances),
    )
    close(ours.mean, theirs.mean, 1e-12)
    close(ours.covariance, theirs.covariance, 1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_one_by_one_for_each_mode(momentum):
    """The recursion of the docstring, and (1 - η s μ)^i without momentum; up to 10^18 steps at once."""
    dynamics = kernel_dynamics(
        THETA, targets(1)[0], loss="sum_half", learning_rate=0.1, momentum=momentum, ridge=0.2
    )
    mu = np.linalg.eigvalsh(THETA) + 0.2
    p, v, found = np.ones(N), np.zeros(N), []
    for _ in range(200):
        found.append(p)
        v = momentum * v + p
        p = p - 0.1 * mu * v
    close(dynamics.remaining(np.arange(200)), found, 1e-12)
    if not momentum:
        close(found, (1 - 0.1 * mu) ** np.arange(200)[:, None], 1e-12)
    close(dynamics.remaining([1, 10**18, 1e19, 1e300, np.inf])[1:], 0)
    assert dynamics.remaining([[3, 4], [5, 6]]).shape == (2, 2, N) and dynamics.remaining(3).shape == (N,)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_small_steps_tend_to_the_flow(momentum):
    """The distance halves with the learning rate, to a tenth."""
    y, f0, f0_test = targets(2)
    flow, distances = kernel_dynamics(THETA, y, loss="sum_half"), []
    for rate in (2e-4, 1e-4):
        steps = np.array([1, 2, 8]) * round(0.1 / rate)
        descent = kernel_dynamics(THETA, y, loss="sum_half", learning_rate=rate, momentum=momentum)
        apart = descent.test(steps, f0, f0_test, CROSS) - flow.test(
            steps_to_time(steps, rate, momentum), f0, f0_test, CROSS
        )
        distances.append(np.abs(apart).max())
    assert distances[0] < 1e-2 and abs(distances[0] / distances[1] - 2) < 0.2


# --- flow, against neural-tangents and solvers of ordinary differential equations


@pytest.mark.parametrize("outputs, kind", [(1, "shared"), (3, "shared"), (3, "full")])
def test_flow_equals_gradient_descent_mse(outputs, kind):
    (y, f0, f0_test), (theta, cross) = targets(outputs), kernels(kind, outputs)
    dynamics = kernel_dynamics(theta, y, loss="mean_half")
    predict = nt.predict.gradient_descent_mse(
        jnp.asarray(theta), y, trace_axes=(-1,) if kind == "shared" else ()
    )
    for t in (TIMES, TIMES[1:].reshape(2, 2), 3.0, None):
        ours = np.inf if t is None else t
        train, test = predict(t, f0, f0_test, jnp.asarray(cross))
        close(dynamics.train(ours, f0), train)
        close(dynamics.test(ours, f0, f0_test, cross), test)
    with_rate = nt.predict.gradient_descent_mse(
        jnp.asarray(theta), y, 0.3, trace_axes=(-1,) if kind == "shared" else ()
    )
    close(dynamics.train(steps_to_time(TIMES, 0.3), f0), with_rate(TIMES, f0))


@pytest.mark.parametrize("ridge", [0.01, 0.5])
def test_ridge_is_neural_tangents_absolute_diagonal_at_test_points(ridge):
    y, f0, f0_test = targets(2)
    predict = nt.predict.gradient_descent_mse(
        jnp.asarray(THETA), y, diag_reg=ridge, diag_reg_absolute_scale=True
    )
    dynamics = kernel_dynamics(THETA, y, loss="mean_half", ridge=ridge)
    for t in (2.0, None):
        close(
            dynamics.test(np.inf if t is None else t, f0, f0_test, CROSS), predict(t, f0, f0_test, CROSS)[1]
        )


@pytest.fixture(scope="module")
def ensemble():
    """Means and covariances of neural-tangents' ensemble at test and at training points, by time."""
    y = targets(2)[0]
    both = namedtuple("both", ["nngp", "ntk"])

    def kernel_fn(x1, x2=None, get=None):
        found = both(*(kernel(WIDE, x1, x1 if x2 is None else x2) for kernel in (nngp, ntk)))
        return (
            getattr(found, get)
            if isinstance(get, str)
            else found
            if len(get) == 2
            else getattr(found, get[0])
        )

    predict = nt.predict.gradient_descent_mse_ensemble(kernel_fn, X, y, learning_rate=0.7, diag_reg=0.0)
    return {
        (t, where): predict(t, x, "ntk", True)
        for t in (2.0, 40.0, None)
        for where, x in (("test", X_TEST), ("train", X))
    }


@pytest.mark.slow
@pytest.mark.parametrize("t", [2.0, 40.0, None])
@pytest.mark.parametrize("where", ["test", "train"])
def test_distribution_equals_that_of_the_ensemble(ensemble, where, t):
    """At infinite time neural-tangents solves with Cholesky factors."""
    x, y = {"test": X_TEST, "train": X}[where], targets(2)[0]
    ours = kernel_dynamics(THETA, y, loss="mean_half").distribution(
        np.inf if t is None else steps_to_time(t, 0.7),
        ntk(WIDE, x, X),
        nngp(WIDE, X),
        nngp(WIDE, x, X),
        nngp(WIDE, x),
    )
    mean, covariance = ensemble[t, where]
    close(ours.mean, mean)
    close(ours.covariance, covariance)


def cross_entropy(y):
    return lambda f: -(y * jax.nn.log_softmax(f)).sum() / len(y)


@pytest.mark.parametrize("name", ["cross-entropy", "squared"])
@pytest.mark.parametrize("kind", ["shared", "full"])
def test_flow_on_a_loss_equals_gradient_descent_of_neural_tangents(kind, name):
    """Its solver, jax.experimental.ode with rtol = atol = 1.4e-8 a step, allows 1e-6."""
    (_, f0, f0_test), (theta, cross) = targets(3), kernels(kind, 3)
    y = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    loss = cross_entropy(y) if name == "cross-entropy" else lambda f: ((f - y) ** 2).sum() / 2 / y.size
    theirs = nt.predict.gradient_descent(
        lambda f, _: loss(f), theta, y, trace_axes=(-1,) if kind == "shared" else ()
    )
    t = TIMES[1:]
    for ours, expected in zip(kernel_flow(theta, loss, t, f0, cross, f0_test), theirs(t, f0, f0_test, cross)):
        close(ours, expected, 1e-6)


@pytest.mark.parametrize("kind", ["shared", "full"])
def test_flow_equals_a_solver(kind):
    """SciPy's DOP853 at rtol 1e-12; kernel_flow at 1e-10. Times need no order."""
    (y, f0, f0_test), (theta, cross) = targets(2), kernels(kind, 2)
    whole, t = matrix(theta, 2), np.array([5.0, 0.0, 0.5, 5.0])
    labels = np.eye(2)[[0, 1, 0, 1, 0, 1]]

    def solved(slope):
        right = lambda _, f: -whole @ slope(f.reshape(N, 2)).ravel()
        found = solve_ivp(right, (0, 5), f0.ravel(), "DOP853", [0.0, 0.5, 5.0], rtol=1e-12, atol=1e-13)
        return found.y.T[[2, 0, 1, 2]].reshape(4, N, 2)

    squared = solved(lambda f: (f - y) / y.size)
    close(kernel_dynamics(theta, y, loss="mean_half").train(t, f0), squared)
    close(kernel_flow(theta, lambda f: ((f - y) ** 2).sum() / 2 / y.size, t, f0, rtol=1e-11), squared)
    softmax = lambda f: np.exp(f) / np.exp(f).sum(1, keepdims=True)
    close(
        kernel_flow(theta, cross_entropy(labels), t, f0, rtol=1e-11),
        solved(lambda f: (softmax(f) - labels) / N),
    )
    train, test = kernel_flow(theta, lambda f: ((f - y) ** 2).sum(), t, f0, cross, f0_test, rtol=1e-11)
    dynamics = kernel_dynamics(theta, y, loss="sum_half")
    close(train, dynamics.train(2 * t, f0))
    close(test, dynamics.test(2 * t, f0, f0_test, cross))


def test_flow_at_its_start_alone():
    f0 = targets(2)[1]
    close(kernel_flow(THETA, lambda f: (f**2).sum(), [0.0], f0), f0[None])


# --- limits and order in time


@pytest.mark.parametrize("ridge", [0.0, 0.2])
@pytest.mark.parametrize("kind", ["shared", "full"])
@pytest.mark.parametrize(
    "rule",
    [{}, dict(learning_rate=0.01), dict(learning_rate=0.01, momentum=0.9)],
    ids=["flow", "gd", "momentum"],
)
def test_from_its_start_to_kernel_regression(rule, kind, ridge):
    (y, f0, f0_test), (theta, cross) = targets(2), kernels(kind, 2)
    dynamics = kernel_dynamics(theta, y, loss="sum_half", ridge=ridge, **rule)
    start, end = (dynamics.test(t, f0, f0_test, cross) for t in (0, np.inf))
    close(start, f0_test, 0)
    close(dynamics.train(0, f0), f0, 1e-12)
    weights = np.linalg.solve(matrix(theta, 2) + ridge * np.eye(2 * N), (y - f0).ravel())
    close(end, f0_test + (matrix(cross, 2) @ weights).reshape(M, 2))
    close(dynamics.train(np.inf, f0), f0 + (matrix(theta, 2) @ weights).reshape(N, 2))
    close(dynamics.train(np.inf, f0), dynamics.test(np.inf, f0, f0, theta))
    close(dynamics.test(10**9, f0, f0_test, cross), end)


def test_training_points_are_test_points_like_others():
    y, f0, _ = targets(2)
    dynamics = kernel_dynamics(THETA, y, loss="mean", ridge=0.1)
    close(dynamics.train(TIMES, f0), dynamics.test(TIMES, f0, f0, THETA), 1e-12)


def test_loss_falls():
    y, f0, _ = targets(2)
    times = np.linspace(0, 30, 200)
    for rule, t in (({}, times), ({"learning_rate": 0.1}, np.arange(200))):
        train = kernel_dynamics(THETA, y, loss="sum_half", **rule).train(t, f0)
        losses = ((train - y) ** 2).sum((1, 2))
        assert (np.diff(losses) < 0).all() and losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("momentum", [0.0, 0.7])
@pytest.mark.parametrize("kind", ["shared", "full"])
def test_the_largest_learning_rate_parts_convergence_from_divergence(kind, momentum, loss):
    (y, f0, _), (theta, _) = targets(3), kernels(kind, 3)
    limit = max_learning_rate(theta, loss, 3, momentum)
    scale = {"sum_half": 1.0, "mean_half": 1 / 18, "mean": 2 / 18}[loss]
    assert limit == pytest.approx(
        2 * (1 + momentum) / (scale * np.linalg.eigvalsh(matrix(theta, 3))[-1]), rel=1e-12
    )
    at = lambda rate: kernel_dynamics(theta, y, loss=loss, learning_rate=rate, momentum=momentum)
    below, above = at(0.99 * limit), at(1.01 * limit)
    assert np.abs(below.remaining(3000)[-1]) < 1e-3 and np.abs(above.remaining(3000)[-1]) > 1e3
    assert (below.remaining(np.inf) == 0).all()
    with pytest.raises(
        ValueError, match=f"descent diverges: learning_rate is .*, and above {limit:.4g} outputs grow"
    ):
        above.train(np.inf, f0)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_critical_learning_rate_is_the_fastest(loss):
    """Of 10,001 learning rates up to the largest, none contracts all modes by more."""
    best = critical_learning_rate(THETA, loss, 2)
    limit = max_learning_rate(THETA, loss, 2)
    grid = np.linspace(0, limit, 10_001)[1:-1]
    modes = loss_scale(loss, N, 2) * np.linalg.eigvalsh(THETA)
    worst = lambda rates: np.abs(1 - np.multiply.outer(rates, modes)).max(-1)
    assert worst(best) <= worst(grid).min() and abs(grid[worst(grid).argmin()] - best) <= limit / 10_000


@pytest.mark.parametrize("learning_rate, steps", [(5.0, 10**5), (1e300, 3), (1.0, [1, 10**18])])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_that_overflow_are_refused(learning_rate, steps, momentum):
    y, f0, f0_test = targets(1)
    dynamics = kernel_dynamics(THETA, y, loss="sum_half", learning_rate=learning_rate, momentum=momentum)
    asks = dynamics.remaining, lambda t: dynamics.train(t, f0), lambda t: dynamics.test(t, f0, f0_test, CROSS)
    for ask in asks:
        with pytest.raises(ValueError, match="descent diverges: learning_rate is"):
            ask(steps)


# --- distributions


@pytest.fixture(scope="module")
def prior():
    x = np.concatenate([X_TEST, X[:1]])
    return (
        np.asarray(ntk(WIDE, x, X)),
        np.asarray(nngp(WIDE, X)),
        np.asarray(nngp(WIDE, x, X)),
        np.asarray(nngp(WIDE, x)),
    )


RULES = [dict(ridge=0.1), dict(learning_rate=0.2), dict(learning_rate=0.2, momentum=0.6, ridge=0.1)]


@pytest.mark.parametrize("rule", RULES, ids=["flow", "gd", "momentum"])
def test_distribution_is_that_of_drawn_functions(prior, rule):
    """Mean and covariance of 40,000 draws: 5 standard errors of each entry."""
    theta_test, nngp_train, nngp_cross, nngp_test = prior
    y, draws, m = targets(1)[0], 40_000, len(nngp_test)
    joint = np.block([[nngp_train, nngp_cross.T], [nngp_cross, nngp_test]])
    f = np.linalg.cholesky(joint + 1e-12 * np.eye(N + m)) @ np.random.default_rng(5).normal(
        size=(N + m, draws)
    )
    dynamics = kernel_dynamics(THETA, np.repeat(y, draws, 1), loss="sum_half", **rule)
    alone = kernel_dynamics(THETA, y, loss="sum_half", **rule)
    for t in (3, np.inf):
        outs = dynamics.test(t, f[:N], f[N:], theta_test)
        mean, covariance = alone.distribution(t, *prior)
        spread = np.sqrt(np.maximum(np.diag(covariance), 0))
        assert (np.abs(outs.mean(1) - mean[:, 0]) <= 5 * spread / draws**0.5 + 1e-7).all()
        error = np.sqrt((np.outer(spread, spread) ** 2 + covariance**2) / draws)
        assert (np.abs(np.cov(outs) - covariance) <= 5 * error + 1e-7).all()


@pytest.mark.parametrize("rule", RULES, ids=["flow", "gd", "momentum"])
def test_covariances_are_kernels_and_their_diagonals_are_asked_for_alone(prior, rule):
    dynamics = kernel_dynamics(THETA, targets(2)[0], loss="mean_half", **rule)
    times = np.array([[0, 1, 5], [20, 300, np.inf]])
    mean, full = dynamics.distribution(times, *prior)
    again, diagonal = dynamics.distribution(times, *prior, covariance="diagonal")
    assert (mean.shape, full.shape, diagonal.shape) == ((2, 3, 4, 2), (2, 3, 4, 4), (2, 3, 4))
    close(again, mean, 0)
    close(diagonal, np.diagonal(full, axis1=-2, axis2=-1), 1e-12)
    close(full, full.swapaxes(-1, -2), 1e-14)
    assert np.linalg.eigvalsh(full).min() > -1e-12
    close(full[0, 0], prior[3], 0)
    close(mean[0, 0], 0, 0)
    one = dynamics.distribution(5, *prior)
    close(one.covariance, full[0, 2], 1e-14)


def test_trained_networks_agree_at_a_training_point(prior):
    y = targets(2)[0]
    mean, covariance = kernel_dynamics(THETA, y, loss="mean").distribution(np.inf, *prior)
    close(mean[-1], y[0])
    close(covariance[-1], 0)


# --- kernels at the edge of rounding


def test_a_hilbert_matrix_is_learned_as_far_as_rounding_goes():
    """Its condition is 1.6e16, beyond float64."""
    theta, y = hilbert(12), np.sin(np.arange(12.0))[:, None]
    for rule, t in (
        ({}, [0, 1.0, 1e6, 1e300, np.inf]),
        ({"learning_rate": 0.5}, [0, 1, 10**6, 10**18, np.inf]),
    ):
        dynamics = kernel_dynamics(theta, y, loss="sum_half", **rule)
        assert 1 <= dynamics.unlearned <= 3 and dynamics.condition == np.inf
        train, test = dynamics.train(t, 0 * y), dynamics.test(t, 0 * y, 0 * y[:3], theta[:3])
        assert np.isfinite(train).all() and np.isfinite(test).all()
        np.testing.assert_array_equal(dynamics.remaining(np.inf), np.arange(12) < dynamics.unlearned)
        assert np.abs(train[-1] - y).max() < 0.05
    ridged = kernel_dynamics(theta, y, loss="sum_half", ridge=1e-6)
    assert ridged.unlearned == 0 and ridged.condition == pytest.approx(
        (np.linalg.eigvalsh(theta)[-1] + 1e-6) / 1e-6, rel=1e-6
    )
    close(ridged.train(np.inf, 0 * y), theta @ np.linalg.solve(theta + 1e-6 * np.eye(12), y))


@pytest.mark.parametrize("conflict", [0.0, 1.0])
@pytest.mark.parametrize(
    "rule",
    [{}, dict(learning_rate=0.1), dict(learning_rate=0.1, momentum=0.5)],
    ids=["flow", "gd", "momentum"],
)
def test_duplicated_points(rule, conflict):
    """Equal targets: as without the copy, of twice the weight; conflicting ones: their mean is learned."""
    y, rows = targets(1)[0], [*range(N), 0]
    twice = y[rows].copy()
    twice[-1] += conflict
    dynamics = kernel_dynamics(THETA[np.ix_(rows, rows)], twice, loss="sum_half", **rule)
    train = dynamics.train([0, 30, np.inf], 0 * twice)
    assert dynamics.unlearned == 1 and dynamics.condition == np.inf and np.isfinite(train).all()
    expected = twice.copy()
    expected[[0, -1]] = (twice[0] + twice[-1]) / 2
    close(train[-1], expected)
    close(train[:, 0], train[:, -1], 1e-12)
    f0_test = targets(1)[2]
    single = kernel_dynamics(THETA, expected[:N], loss="sum_half").test(np.inf, 0 * y, f0_test, CROSS)
    close(dynamics.test(np.inf, 0 * twice, f0_test, CROSS[:, rows]), single)


def test_a_kernel_of_low_rank_leaves_the_rest():
    features = np.random.default_rng(0).normal(size=(N, 2))
    dynamics = kernel_dynamics(features @ features.T, targets(1)[0], loss="sum_half")
    assert dynamics.unlearned == N - 2
    kept = features @ np.linalg.lstsq(features, dynamics.y)[0]
    close(dynamics.train(np.inf, 0 * dynamics.y), kept)
    close(dynamics.rates[-2:], np.linalg.eigvalsh(features.T @ features), 1e-10)


@pytest.mark.parametrize("x64", [True, False])
def test_single_precision_is_computed_in_double(x64):
    """A kernel of float32 points: its modes below float32's rounding are unlearned, and no NaN appears."""
    y, f0, f0_test = targets(2)
    close_pair = np.concatenate([X[:-1], X[:1] + 1e-5])
    double = [np.asarray(a) for a in (ntk(WIDE, close_pair), ntk(WIDE, X_TEST, close_pair), y, f0, f0_test)]
    with enable_x64(x64):
        theta, cross, *single = (jnp.asarray(a.astype(np.float32)) for a in double)
        dynamics = kernel_dynamics(theta, single[0], loss="mean_half")
        outs = dynamics.test([1.0, 1e9, np.inf], single[1], single[2], cross)
        flow = kernel_flow(theta, lambda f: ((f - y) ** 2).sum() / 2 / y.size, [1.0], single[1])
        assert (
            dynamics.unlearned == 1
            and outs.dtype == flow.dtype == dynamics.train(1.0, single[1]).dtype == np.float64
        )
    assert np.isfinite(outs).all()
    decay = expm(-np.asarray(theta, np.float64) / y.size)
    close(
        dynamics.train(1.0, single[1]),
        single[0] + decay @ (np.asarray(single[1], np.float64) - single[0]),
        1e-6,
    )
    close(flow[0], dynamics.train(1.0, f0), 1e-5)


@pytest.mark.parametrize(
    "theta, says",
    [
        (
            np.eye(3) + np.eye(3, k=1) / 8,
            "theta is not symmetric: entries differ from their transposes by 0.12, the largest is 1",
        ),
        (
            np.diag([1.0, 2.0, -0.5]),
            "theta is not positive: its eigenvalues go from -0.5 to 2, .*add 0.5 to its diagonal",
        ),
        (-np.eye(3), "theta is not positive: its eigenvalues go from -1 to -1"),
        (np.zeros((3, 3)), "theta is not positive: its eigenvalues go from 0 to 0"),
        (np.diag([1.0, 1.0, -1e-5]).astype("float32"), "go from -1e-05 to 1, in float32"),
    ],
    ids=["asymmetric", "indefinite", "negative", "zero", "float32"],
)
def test_what_is_no_kernel_is_refused(theta, says):
    y = np.ones((3, 1))
    asks = [
        lambda: kernel_dynamics(theta, y, loss="mean"),
        lambda: kernel_flow(theta, lambda f: (f**2).sum(), [1.0], y),
        lambda: max_learning_rate(theta, "mean"),
        lambda: critical_learning_rate(theta, "mean"),
    ]
    for ask in asks:
        with pytest.raises(ValueError, match=says):
            ask()


# --- conventions


@pytest.mark.parametrize("loss", LOSSES)
def test_the_scale_is_that_of_the_gradient(loss):
    f, y = targets(3)[:2]
    value = {
        "sum_half": lambda f: ((f - y) ** 2).sum() / 2,
        "mean_half": lambda f: ((f - y) ** 2).mean() / 2,
        "mean": lambda f: ((f - y) ** 2).mean(),
    }[loss]
    close(jax.grad(value)(jnp.asarray(f)), loss_scale(loss, N, 3) * (f - y), 1e-12)


def test_the_largest_learning_rate_is_that_of_neural_tangents():
    for outputs in (1, 3):
        theirs = nt.predict.max_learning_rate(jnp.asarray(THETA), y_train_size=N * outputs, eps=0.0)
        assert max_learning_rate(THETA, "mean_half", outputs) == pytest.approx(float(theirs), rel=1e-9)


@pytest.mark.parametrize("loss", ["mean_half", "mean"])
@pytest.mark.parametrize("ask", [max_learning_rate, critical_learning_rate])
def test_the_rate_of_a_mean_loss_needs_the_number_of_outputs(ask, loss):
    """Without it the rate for ten outputs was ten times too small."""
    with pytest.raises(ValueError, match=r"outputs is missing; .* theta of shape \(6, 6\) does not tell"):
        ask(THETA, loss)
    assert ask(THETA, loss, 10) == pytest.approx(10 * ask(THETA, loss, 1), rel=1e-12)
    assert ask(THETA, "sum_half") == ask(THETA, "sum_half", 10)
    full = np.einsum("ij,ab->ijab", THETA, np.eye(3))
    assert ask(full, loss) == ask(full, loss, 3) == pytest.approx(ask(THETA, loss, 3), rel=1e-12)
    with pytest.raises(ValueError, match=r"outputs is 2, and theta has shape \(6, 6, 3, 3\); expected 3"):
        ask(full, loss, 2)


# --- one output without its axis


@pytest.mark.parametrize("rule", [{}, dict(learning_rate=0.1, momentum=0.5, ridge=0.1)], ids=["flow", "gd"])
@pytest.mark.parametrize("kind", ["shared", "full"])
def test_targets_without_an_axis_of_outputs(kind, rule):
    (y, f0, f0_test), (theta, cross) = targets(1), kernels(kind, 1)
    t = [[0, 3], [5, np.inf]]
    plain, flat = (kernel_dynamics(theta, a, loss="mean", **rule) for a in (y, y[:, 0]))
    for start, start_test in ((f0, f0_test), (f0[:, 0], f0_test[:, 0]), (f0, f0_test[:, 0])):
        close(flat.train(t, start), plain.train(t, f0)[..., 0], 0)
        close(flat.test(t, start, start_test, cross), plain.test(t, f0, f0_test, cross)[..., 0], 0)
        close(plain.train(t, start), plain.train(t, f0), 0)
    assert flat.y.shape == (N,) and flat.train(3, f0).shape == (N,)


def test_distributions_and_flows_without_an_axis_of_outputs(prior):
    y, f0, f0_test = targets(1)
    plain, flat = (
        kernel_dynamics(THETA, a, loss="mean").distribution([1.0, 2.0], *prior) for a in (y, y[:, 0])
    )
    close(flat.mean, plain.mean[..., 0], 0)
    close(flat.covariance, plain.covariance, 0)
    loss = lambda f: ((f - y.reshape(f.shape)) ** 2).sum()
    plain = kernel_flow(THETA, loss, [0.0, 1.0], f0, CROSS, f0_test)
    for start_test in (f0_test, f0_test[:, 0]):
        flat = kernel_flow(THETA, loss, [0.0, 1.0], f0[:, 0], CROSS, start_test)
        for a, b in zip(flat, plain):
            close(a, b[..., 0], 1e-12)


# --- types


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_kernels_in_half_precision_are_cut_off_at_their_own_rounding(dtype):
    """A kernel of rank 2 in half precision is positive to its rounding, and 2 of its modes are learned."""
    features = np.random.default_rng(0).normal(size=(40, 2))
    theta = jnp.asarray(features @ features.T).astype(dtype)
    theta = (theta + theta.T) / 2
    dynamics = kernel_dynamics(theta, np.ones(40), loss="mean")
    assert dynamics.unlearned == 38
    exact = kernel_dynamics(features @ features.T, np.ones(40), loss="mean")
    close(dynamics.train(1.0, np.zeros(40)), exact.train(1.0, np.zeros(40)), 0.02)


def test_inside_jit_and_grad_is_told_of():
    """And what may be used there."""
    y, f0, f0_test = targets(1)
    says = "has no values inside jit, grad or vmap; expected an array outside of them"
    asks = [
        lambda theta: kernel_dynamics(theta, y, loss="mean").train(1.0, f0).sum(),
        lambda theta: kernel_flow(theta, lambda f: (f**2).sum(), [1.0], f0).sum(),
        lambda theta: max_learning_rate(theta, "mean", 1),
        lambda theta: critical_learning_rate(theta, "mean", 1),
    ]
    for ask in asks:
        for wrapped in (jax.grad(ask), jax.jit(ask)):
            with pytest.raises(ValueError, match=f"theta {says}.*there is gp_posterior"):
                wrapped(jnp.asarray(THETA))
    dynamics = kernel_dynamics(THETA, y, loss="mean")
    for name, ask in {
        "y": lambda a: kernel_dynamics(THETA, y * a, loss="mean").train(1.0, f0).sum(),
        "f0": lambda a: dynamics.train(1.0, a * f0).sum(),
        "theta_test": lambda a: dynamics.test(1.0, f0, f0_test, a * CROSS).sum(),
        "t": lambda a: dynamics.train(a, f0).sum(),
        "steps": lambda a: steps_to_time(a, 0.1),
    }.items():
        with pytest.raises(ValueError, match=f"{name} {says}"):
            jax.grad(ask)(1.0)
