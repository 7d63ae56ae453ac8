"""Models of Flax and Equinox through their doors: the same outputs, kernels by hand, and no training mode."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from ntk_helpers import empirical_ntk, linearize
from ntk_helpers.adapters import from_equinox, from_linen, from_nnx
from ntk_helpers.learning.training import train

X = np.asarray(jax.random.normal(jax.random.key(0), (3, 6, 6, 1)))


class LinenCNN(linen.Module):
    dtype: type = float

    @linen.compact
    def __call__(self, x, train):
        x = linen.Conv(4, (3, 3), param_dtype=self.dtype)(x)
        x = linen.BatchNorm(use_running_average=not train, param_dtype=self.dtype)(x)
        x = linen.Dropout(0.3, deterministic=not train)(linen.relu(x))
        return linen.Dense(2, param_dtype=self.dtype)(x.reshape(len(x), -1))


class NnxCNN(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs, param_dtype=float)
        self.norm = nnx.BatchNorm(4, rngs=rngs, param_dtype=float)
        self.drop = nnx.Dropout(0.3, rngs=rngs)
        self.out = nnx.Linear(144, 2, rngs=rngs, param_dtype=float)

    def __call__(self, x):
        return self.out(self.drop(nnx.relu(self.norm(self.conv(x)))).reshape(len(x), -1))


class EquinoxCNN(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    drop: eqx.nn.Dropout
    out: eqx.nn.Linear

    def __init__(self, key):
        first, last = jax.random.split(key)
        self.conv = eqx.nn.Conv2d(1, 4, 3, padding=1, key=first, dtype=float)
        self.norm = eqx.nn.BatchNorm(4, "batch", mode="batch", dtype=float)
        self.drop = eqx.nn.Dropout(0.3)
        self.out = eqx.nn.Linear(144, 2, key=last, dtype=float)

    def __call__(self, x, state):
        x, state = self.norm(self.conv(x.transpose(2, 0, 1)), state)
        return self.out(self.drop(jax.nn.relu(x)).ravel()), state


def linen_model():
    module = LinenCNN()
    variables = module.init(jax.random.key(1), X, False)
    variables["batch_stats"]["BatchNorm_0"]["mean"] += 0.3
    return *from_linen(module, variables, train=False), module.apply(variables, X, train=False)


def nnx_model():
    model = NnxCNN(nnx.Rngs(0))
    model.norm.mean = nnx.BatchStat(jnp.full(4, 0.3))
    model.eval()
    return *from_nnx(model), model(X)


def equinox_model():
    model, state = eqx.nn.make_with_state(EquinoxCNN)(jax.random.key(2))
    model = eqx.nn.inference_mode(model)
    outputs = jax.vmap(lambda x: model(x, state)[0], axis_name="batch")(X)
    return *from_equinox(model, state), outputs


MODELS = [linen_model, nnx_model, equinox_model]


@pytest.mark.parametrize("model", MODELS)
def test_outputs_are_the_models_and_the_kernel_is_that_of_its_parameters(model):
    apply, params, outputs = model()
    np.testing.assert_allclose(apply(params, X), outputs, rtol=1e-12)
    jacobian = jax.jacrev(lambda p: apply(p, X))(params)
    rows = [np.asarray(leaf).reshape(3, 2, -1) for leaf in jax.tree.leaves(jacobian)]
    by_hand = sum(np.einsum("iap,jbp->ijab", row, row) for row in rows)
    np.testing.assert_allclose(empirical_ntk(apply, params, X), by_hand, rtol=1e-9, atol=1e-12)
    # weights, biases, scale and shift; running averages and switches are no parameters
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 40 + 8 + 290


@pytest.mark.parametrize("model", MODELS)
def test_a_model_can_be_linearized_and_trained(model):
    apply, params, outputs = model()
    line = linearize(apply, params)
    np.testing.assert_allclose(line(params, X), outputs, rtol=1e-10)
    run = train(apply, params, X, 0 * outputs, optax.sgd(1e-3), 5, loss="mean")
    assert run.loss[-1] < run.loss[0]


def test_a_linen_module_without_a_state_and_a_frozen_one():
    module, x = linen.Dense(2), X.reshape(3, -1)
    variables = module.init(jax.random.key(0), x)
    apply, params = from_linen(module, variables)
    np.testing.assert_array_equal(apply(params, x), module.apply(variables, x))


def test_an_equinox_model_without_a_state_and_an_idle_dropout():
    model = eqx.nn.Sequential([eqx.nn.Linear(4, 3, key=jax.random.key(0)), eqx.nn.Dropout(0.0)])
    apply, params = from_equinox(model)
    np.testing.assert_array_equal(apply(params, X[0, :, :4, 0]), jax.vmap(model)(X[0, :, :4, 0]))


def training(kind):
    if kind == "linen state":
        module = LinenCNN()
        variables = module.init(jax.random.key(1), X, False)
        return empirical_ntk(*from_linen(module, variables, train=True), X)
    if kind == "linen dropout":
        apply, params = from_linen(linen.Dropout(0.3, deterministic=False), {"params": {}})
        return apply(params, X)
    if kind == "nnx":
        model = NnxCNN(nnx.Rngs(0))
        model.drop.deterministic = True
        return from_nnx(model)
    if kind == "nnx dropout":
        model = NnxCNN(nnx.Rngs(0))
        model.norm.use_running_average = True
        return from_nnx(model)
    return from_equinox(*eqx.nn.make_with_state(EquinoxCNN)(jax.random.key(2)))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("linen state", "in training mode.*batch_stats.*train=False"),
        ("linen dropout", "in training mode.*train=False"),
        ("nnx", r"BatchNorm at 'norm'.*model.eval\(\)"),
        ("nnx dropout", "Dropout at 'drop'"),
        ("equinox", r"BatchNorm at '.norm'.*inference_mode"),
    ],
)
def test_training_mode_is_refused_with_what_to_do(kind, said):
    with pytest.raises(ValueError, match=said):
        training(kind)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: from_linen(3, {}), "module is a builtins.int; expected a module of flax.linen"),
        (lambda: from_linen(linen.Dense(2), {"kernel": 1}), r"variables is \['kernel'\]; expected"),
        (lambda: from_linen(linen.Dense(2), 3), "variables is int; expected"),
        (
            lambda: from_nnx(linen.Dense(2)),
            "model is a flax.linen.linear.Dense; expected a model of flax.nnx",
        ),
        (lambda: from_equinox(jnp.ones(3)), "expected a model of Equinox"),
    ],
)
def test_what_is_no_such_model_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize(
    ("model", "door"),
    [
        (LinenCNN(), "from_linen"),
        (NnxCNN(nnx.Rngs(0)), "from_nnx"),
        (eqx.nn.MLP(4, 2, 8, 1, key=jax.random.key(0)), "from_equinox"),
    ],
)
@pytest.mark.parametrize("use", [empirical_ntk, lambda f, p, x: linearize(f, p)])
def test_a_bare_model_elsewhere_names_its_door(model, door, use):
    with pytest.raises(ValueError, match=f"f is a model.*ntk_helpers.adapters.{door}"):
        use(model, {}, X)


def test_a_module_that_takes_parameters_and_inputs_is_a_function():
    class Scaled(eqx.Module):
        factor: float

        def __call__(self, params, x):
            return self.factor * x @ params

    x, params = X[:, :, 0, 0], jnp.ones((6, 2))
    for f in (Scaled(2.0), eqx.filter_jit(lambda params, x: 2.0 * x @ params)):
        np.testing.assert_allclose(empirical_ntk(f, params, x, output="trace"), 4 * x @ x.T, rtol=1e-10)
