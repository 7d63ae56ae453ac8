"""Code of a user with types, which mypy reads and nobody runs: the signatures that the package promises."""

from functools import partial

import jax
import numpy as np
import optax

from ntk_helpers import (
    MLP,
    Activation,
    critical_sigma_w2,
    empirical_ntk,
    empirical_ntk_cost,
    fixed_point,
    gp_log_likelihood,
    gp_posterior,
    kernel_dynamics,
    kernel_flow,
    kernel_regression,
    kernels,
    least_squares,
    linearize,
    loss_scale,
    max_learning_rate,
    nngp,
    ntk,
    ntk_moments,
    phase,
    propagate,
    sample_ntk,
    taylor,
    tiled,
)
from ntk_helpers.finite import NTKCost
from ntk_helpers.infinite import Kernels
from ntk_helpers.learning import (
    KernelDynamics,
    LeastSquares,
    Posterior,
    alignment,
    kernel_solve,
    loo_error,
    nystrom_features,
)
from ntk_helpers.learning.training import scale_by_parameterization
from ntk_helpers.networks import get_activation
from ntk_helpers.theory import FixedPoint, Layers, Phase, Risk, linear_risk
from ntk_helpers.trust import CoordinateCheck, coordinate_check


def networks(key: jax.Array) -> tuple[MLP, object]:
    phi: Activation = get_activation("tanh")
    net = MLP(depth=3, width=64, d_out=1, activation=phi, sigma_w2=1.5, sigma_b2=0.1)
    return net, net.init(key, d_in=4)


def kernels_of(net: MLP, params: object, key: jax.Array, x: jax.Array) -> list[jax.Array]:
    both: Kernels = kernels(net, x)
    cost: NTKCost = empirical_ntk_cost(net, params, x, output="trace", memory_budget=2**30)
    print(cost.flops, ntk_moments(MLP(3, 64), x).ratio)
    tiled(partial(ntk, net), x, path="kernel.npy")
    return [
        both.nngp,
        both.ntk,
        nngp(net, x),
        ntk(net, x, x),
        empirical_ntk(net, params, x, check_rows=False),
    ]


def training(net: MLP, params: object, theta: np.ndarray, y: np.ndarray, x: jax.Array) -> np.ndarray:
    dynamics: KernelDynamics = kernel_dynamics(theta, y, loss="sum_half", ridge=0.1)
    posterior: Posterior = gp_posterior(theta, theta, theta, y, noise=0.1)
    regression: LeastSquares = kernel_regression(theta, y)
    print(posterior.mean, gp_log_likelihood(theta, y, 0.1), regression.rank, least_squares(theta, y).rank)
    print(max_learning_rate(theta, "mean", outputs=2), loss_scale("mean", 10, 2), dynamics.condition)
    print(linearize(net, params)(params, x), taylor(net, params, 2)(params, x))
    kernel_flow(theta, lambda f: (f**2).sum(), np.array([1.0]), y)
    return dynamics.train([0.0, 1.0], y)


def kernel_machines(net: MLP, theta: np.ndarray, y: np.ndarray, x: jax.Array) -> tuple[float, np.ndarray]:
    regression: LeastSquares = kernel_regression(theta, y)
    ridge: float = regression.best_ridge([0.1, 1.0], by="log_likelihood")
    print(regression.leave_one_out(ridge), regression.leverages(ridge), loo_error(theta, y, ridge))
    alpha: np.ndarray = kernel_solve(lambda i, j: ntk(net, x[i], x[j]), y, ridge, [0, 1], tol=1e-3)
    return alignment(theta, y @ y.T, centred=True), nystrom_features(theta[:9, :9])(theta[:, :9]) @ alpha


def theory(net: MLP) -> tuple[Phase, FixedPoint, Layers, Risk, float]:
    risk = linear_risk(10, np.ones(5), np.ones(5), noise=0.1)
    return phase(net), fixed_point(net), propagate(net), risk, critical_sigma_w2("relu", 0.0)


def widths(key: jax.Array, x: jax.Array, y: jax.Array) -> tuple[np.ndarray, str]:
    net = MLP(depth=3, width=64, parameterization="mup", alpha=8.0)
    sgd = lambda net: optax.chain(optax.sgd(0.1), scale_by_parameterization(net, "sgd"))
    found: CoordinateCheck = coordinate_check(net, (64, 128), x, y, sgd, 3, loss="mean", key=key, draws=2)
    return found.slopes, str(found)


def draws(net: MLP, key: jax.Array, x: jax.Array) -> object:
    return sample_ntk(net, key, x, draws=3)
