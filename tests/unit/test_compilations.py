"""A second call of a public function compiles nothing, with other numbers and functions defined anew.

The table has a call for every public function, and for the methods that compute in JAX.
"""

import importlib
import inspect
import pkgutil

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compilations import compilations
from flax import linen, nnx

import ntk_helpers as nh
from ntk_helpers import MLP, adapters, finite, learning, networks, theory, trust
from ntk_helpers.learning import training

BESIDE = ("ntk_helpers.book", "ntk_helpers.neural_tangents_compat")
NET = MLP(3, 8, activation="tanh", sigma_b2=0.1)
X = np.random.default_rng(0).normal(size=(5, 3))
PARAMS = jax.jit(lambda key: NET.init(key, 3))(jax.random.key(0))
THETA = X @ X.T + np.eye(5)
MODEL = lambda p, x: jnp.tanh(x @ p["w"])
WEIGHTS = {"w": jnp.ones((3, 2))}
LINEN = linen.Dense(2)
LINEN_WEIGHTS = LINEN.init(jax.random.key(0), X)
NNX = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
EQUINOX = eqx.nn.Linear(3, 2, key=jax.random.key(0))


def scaled(k, tree=PARAMS):
    return jax.tree.map(lambda leaf: np.asarray(leaf) * (1 + k / 10), tree)


def through(k, apply, params):
    return apply(jax.tree.map(lambda leaf: (1 + k / 10) * leaf, params), X)


def net(k, **kind):
    return MLP(**dict(depth=3, width=8, activation="tanh", sigma_w2=1.5 + k / 10, sigma_b2=0.1) | kind)


def fit(k):
    return training.train(
        NET.apply,
        scaled(k),
        X,
        X[:, :1],
        optax.adam(0.1 + k / 10),
        4,
        loss=lambda f, y: (1 + k) * ((f - y) ** 2).mean(),
        observe={"norm": lambda p: (1 + k) * (p[0]["w"] ** 2).sum()},
        stop=lambda i, losses: losses[i] < k / 100,
        batch_size=2,
        key=jax.random.key(k),
    )


def rates(k):
    optimizer = optax.chain(optax.adam(0.1 + k / 10), training.scale_by_parameterization(net(k), "adam"))
    return training.train(NET, scaled(k), X, X[:, :1], optimizer, 2, loss="mean")


def coordinates(k):
    sgd = lambda net: optax.chain(optax.sgd(0.1 + k / 10), training.scale_by_parameterization(net, "sgd"))
    shape = net(k, parameterization="mup", alpha=2.0)
    key = jax.random.key(k)
    return trust.coordinate_check(shape, (3, 5), X + k, X[:, :1], sgd, 2, loss="mean", key=key, draws=2)


def flow(k):
    return nh.kernel_flow(THETA, lambda f: ((f - k) ** 2).sum(), [1.0 + k], X[:, 0])


def registered(k):
    name = f"swish_{len(networks.activation_names())}"
    networks.register_activation(networks.quadrature(name, lambda z: z * jax.nn.sigmoid(z)))


def blocks(k):
    return lambda i, j: nh.ntk(net(k), (X + k)[i], (X + k)[j])


def tile(a, b):
    return jnp.tanh(a @ b.T)


METHODS = {"Activation": ("dual", "dual_derivative"), "MLP": ("init", "apply", "preactivations")}
CALLS = {
    # networks
    "activation_names": lambda k: networks.activation_names(),
    "get_activation": lambda k: networks.get_activation("tanh"),
    "quadrature": lambda k: networks.quadrature("swish", jax.nn.swish),
    "register_activation": registered,
    "Activation.dual": lambda k: networks.get_activation("tanh").dual(1.0 + k, 2.0, 0.5),
    "Activation.dual_derivative": lambda k: networks.get_activation("tanh").dual_derivative(
        1.0 + k, 2.0, 0.5
    ),
    "MLP.init": lambda k: net(k).init(jax.random.key(k), 3),
    "MLP.apply": lambda k: net(k).apply(scaled(k), X + k),
    "MLP.preactivations": lambda k: net(k).preactivations(scaled(k), X + k),
    # infinite
    "kernels": lambda k: nh.kernels(net(k), X + k),
    "nngp": lambda k: nh.nngp(net(k), X + k, X),
    "ntk": lambda k: nh.ntk(net(k), X + k),
    # finite
    "empirical_ntk": lambda k: nh.empirical_ntk(MODEL, scaled(k, WEIGHTS), X + k),
    "empirical_ntk_cost": lambda k: nh.empirical_ntk_cost(MODEL, scaled(k, WEIGHTS), X + k),
    "kernel_corrections": lambda k: finite.kernel_corrections(net(k), X[:2] + k),
    "ntk_moments": lambda k: nh.ntk_moments(net(k, activation="relu", sigma_b2=0.0), X + k),
    "sample_ntk": lambda k: nh.sample_ntk(net(k), jax.random.key(k), X + k, 3),
    # scale
    "tiled": lambda k: nh.tiled(tile, X + k),
    # learning
    "alignment": lambda k: learning.alignment((1 + k) * THETA, X @ X.T + k),
    "critical_learning_rate": lambda k: learning.critical_learning_rate((1 + k) * THETA, "mean", 1),
    "gp_log_likelihood": lambda k: nh.gp_log_likelihood(jnp.asarray((1 + k) * THETA), X, 0.1 + k),
    "gp_posterior": lambda k: nh.gp_posterior((1 + k) * THETA, THETA, THETA, X, 0.1 + k),
    "kernel_distance": lambda k: learning.kernel_distance((1 + k) * THETA, X @ X.T + k, centred=True),
    "kernel_dynamics": lambda k: nh.kernel_dynamics((1 + k) * THETA, X, loss="mean").train(1.0, X),
    "kernel_flow": flow,
    "kernel_regression": lambda k: nh.kernel_regression((1 + k) * THETA, X).coefficients(),
    "kernel_solve": lambda k: learning.kernel_solve(blocks(k), X + k, 0.1 + k, [k, 3]),
    "least_squares": lambda k: nh.least_squares((1 + k) * X, X).coefficients(),
    "leverage_landmarks": lambda k: learning.leverage_landmarks(jax.random.key(k), blocks(k), 5, 2, 0.1 + k),
    "linearize": lambda k: nh.linearize(NET, scaled(k))(scaled(k + 1), X + k),
    "loo_error": lambda k: learning.loo_error(jnp.asarray((1 + k) * THETA), X, 0.1 + k),
    "loss_scale": lambda k: nh.loss_scale("mean", 3 + k),
    "max_learning_rate": lambda k: nh.max_learning_rate((1 + k) * THETA, "mean", 1),
    "nystrom_features": lambda k: learning.nystrom_features((1 + k) * THETA)(THETA),
    "random_features": lambda k: learning.random_features(jax.random.key(k), 3, 4)(X + k),
    "scale_by_parameterization": rates,
    "steps_to_time": lambda k: learning.steps_to_time(3 + k, 0.1),
    "tangent_features": lambda k: learning.tangent_features(net(k), scaled(k), X + k),
    "taylor": lambda k: nh.taylor(NET, scaled(k), 2)(scaled(k + 1), X + k),
    "train": fit,
    # theory
    "critical_sigma_w2": lambda k: nh.critical_sigma_w2("tanh", 0.1 + k / 100),
    "descent_risk": lambda k: theory.descent_risk([1.0 + k], 0.5, 1.0, 0.1),
    "fixed_point": lambda k: nh.fixed_point(net(k)),
    "hermite_parts": lambda k: theory.hermite_parts("tanh"),
    "kernel_spectrum": lambda k: theory.kernel_spectrum(net(k), 3 + k, 4 + k),
    "label_power": lambda k: theory.label_power((1 + k) * THETA, X),
    "learning_curve": lambda k: theory.learning_curve(
        theory.label_power(THETA, X)[0], np.ones(5) + k, [2 + k]
    ),
    "linear_risk": lambda k: theory.linear_risk(5, np.ones(9) + k, np.ones(9), 0.1),
    "optimal_ridge": lambda k: theory.optimal_ridge(lambda ridge: (ridge - 1 - k) ** 2),
    "phase": lambda k: nh.phase(net(k)),
    "propagate": lambda k: nh.propagate(net(k)),
    "random_features_risk": lambda k: theory.random_features_risk(9 + k, 5, 4, 1.0, 0.1),
    "ridgeless_risk": lambda k: theory.ridgeless_risk(0.5 + k / 10, 1.0, 0.1),
    "sphere_power": lambda k: theory.sphere_power(X, X[:, 0] + k, 2 + k),
    "trainable_depth": lambda k: theory.trainable_depth(net(k), 3, 9),
    "weak_features_risk": lambda k: theory.weak_features_risk(9 + k, 4, 1.0, 0.5, 0.1),
    # trust
    "coordinate_check": coordinates,
    "kernel_health": lambda k: trust.kernel_health((1 + k) * THETA),
    # adapters
    "from_equinox": lambda k: through(k, *adapters.from_equinox(EQUINOX)),
    "from_linen": lambda k: through(k, *adapters.from_linen(LINEN, LINEN_WEIGHTS)),
    "from_nnx": lambda k: through(k, *adapters.from_nnx(NNX)),
}


def public() -> set[str]:
    """The functions in the rooms' doors, and the methods of networks and activations."""
    found = pkgutil.walk_packages(nh.__path__, "ntk_helpers.")
    doors = [module.name for module in found if module.ispkg and not module.name.startswith(BESIDE)]
    rooms = [importlib.import_module(name) for name in doors if "._" not in name]
    names = {name for room in rooms for name in room.__all__ if inspect.isfunction(getattr(room, name))}
    return names | {f"{owner}.{method}" for owner, methods in METHODS.items() for method in methods}


STILL = ()
"""Whose second call does compile; whoever mends one takes it off the list."""


def test_every_public_function_has_its_call():
    assert public() == CALLS.keys()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.xfail(name in STILL, reason="compiles", strict=True))
        for name in CALLS
    ],
)
def test_a_second_call_compiles_nothing(name):
    CALLS[name](0)
    with compilations() as made:
        CALLS[name](1)
    assert made == []


def test_the_count_sees_a_compilation():
    with compilations() as made:
        jax.jit(lambda x: x * 3.25 + 7)(X)
    assert len(made) == 1
