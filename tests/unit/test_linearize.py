"""Taylor models of networks in their parameters: orders, kernels, transformations, neural-tangents,
parameters of any kind."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import compilations
from flax import nnx
from jax import random

from ntk_helpers import MLP, empirical_ntk, linearize, taylor
from ntk_helpers.neural_tangents_compat import nt

NET = MLP(3, 6, 2, "tanh", 1.7, 0.3)
X = np.random.default_rng(0).normal(size=(4, 3))


def linen():
    model = nn.Sequential([nn.Dense(5), nn.gelu, nn.Dense(2)])
    variables = model.init(random.key(0), X)
    return lambda p, x: model.apply({"params": p}, x), variables["params"]


def equinox():
    params, rest = eqx.partition(eqx.nn.MLP(3, 2, 5, 1, jax.nn.tanh, key=random.key(0)), eqx.is_inexact_array)
    return lambda p, x: jax.vmap(eqx.combine(p, rest))(x), params


def flax_nnx():
    graph, params = nnx.split(
        nnx.Sequential(nnx.Linear(3, 5, rngs=nnx.Rngs(0)), nnx.silu, nnx.Linear(5, 2, rngs=nnx.Rngs(1)))
    )
    return lambda p, x: nnx.merge(graph, p)(x), params


def plain():
    return lambda p, x: p["scale"] * jnp.sin(x @ p["w"]) + p["b"], {
        "w": jnp.ones((3, 2)) / 3,
        "b": jnp.ones(2),
        "scale": 2.0,
    }


MODELS = {
    "MLP": lambda: (NET, NET.init(random.key(0), 3)),
    "linen": linen,
    "equinox": equinox,
    "nnx": flax_nnx,
    "plain": plain,
}


def moved(params, h=1.0, seed=1):
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    steps = [h * rng.normal(size=jnp.shape(leaf)).astype(jnp.result_type(leaf)) for leaf in leaves]
    return jax.tree.unflatten(tree, [leaf + step for leaf, step in zip(leaves, steps)])


def double(params):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, float), params)


def apply_of(f):
    return f.apply if isinstance(f, MLP) else f


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("name", MODELS)
def test_the_error_of_order_r_falls_with_power_r_plus_one(name, order):
    """Halving the step divides it by 2^(r+1), to a tenth of the power."""
    f, params = MODELS[name]()
    params = double(params)
    model = jax.jit(taylor(f, params, order))
    errors = [
        np.linalg.norm(model(p, X) - apply_of(f)(p, X)) for p in (moved(params, h) for h in (0.02, 0.01))
    ]
    assert abs(np.log2(errors[0] / errors[1]) - (order + 1)) < 0.1


def test_numbers_may_be_parameters():
    f, params = plain()
    p = params | {"scale": 2.5}
    np.testing.assert_allclose(linearize(f, params)(p, X), f(p, X), rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2])
def test_exact_for_a_model_that_is_linear_in_its_parameters(order):
    f = lambda p, x: jnp.sin(x) @ p["w"] + p["b"]
    params = {"w": np.ones((3, 2)), "b": np.zeros(2)}
    p = moved(params, 10.0)
    np.testing.assert_allclose(taylor(f, params, order)(p, X), f(p, X), rtol=0, atol=1e-12)


def test_exact_for_a_polynomial_of_its_order():
    f, p0, p = lambda p, x: jnp.sum(p**3) * x, jnp.array([1.0, -2.0]), jnp.array([0.7, 0.4])
    first = jnp.sum(p0**3) + jnp.sum(3 * p0**2 * (p - p0))
    second = first + jnp.sum(3 * p0 * (p - p0) ** 2)
    for order, expected in ((1, first * X), (2, second * X), (3, f(p, X)), (4, f(p, X))):
        np.testing.assert_allclose(taylor(f, p0, order)(p, X), expected, rtol=0, atol=1e-12)


def test_first_order_is_the_jacobian_product():
    params = NET.init(random.key(0), 3)
    p = moved(params)
    jacobian = jax.jit(jax.jacobian(NET.apply))(params, X)
    slopes = jax.tree.map(lambda j, a, b: np.tensordot(j, a - b, np.ndim(a)), jacobian, p, params)
    expected = jax.jit(NET.apply)(params, X) + sum(jax.tree.leaves(slopes))
    np.testing.assert_allclose(jax.jit(linearize(NET, params))(p, X), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_the_tangent_kernel_is_that_of_the_expansion_point(name):
    f, params = MODELS[name]()
    params = double(params)
    kernel = jax.jit(lambda model, p: empirical_ntk(model, p, X, method="jacobian"), static_argnums=0)
    at_start, model = kernel(f, params), linearize(f, params)
    np.testing.assert_allclose(kernel(model, moved(params)), at_start, rtol=0, atol=1e-10)
    if name == "MLP":
        np.testing.assert_allclose(
            jax.jit(lambda p: empirical_ntk(model, p, X))(moved(params)), at_start, rtol=0, atol=1e-10
        )
    assert np.abs(kernel(f, moved(params)) - at_start).max() > 1e-2


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("activation", ["erf", "relu"])
def test_equals_neural_tangents(activation, order):
    net = MLP(3, 6, 2, activation, 1.7, 0.3)
    params = net.init(random.key(0), 3)
    p, theirs = moved(params), jax.jit(nt.taylor_expand(net.apply, params, order))
    np.testing.assert_allclose(jax.jit(taylor(net, params, order))(p, X), theirs(p, X), rtol=0, atol=1e-10)
    if order == 1:
        ours, theirs = jax.jit(linearize(net, params)), jax.jit(nt.linearize(net.apply, params))
        np.testing.assert_allclose(ours(p, X), theirs(p, X), rtol=0, atol=1e-10)


@pytest.mark.parametrize("order", [1, 2])
def test_passes_through_jit_vmap_and_grad(order):
    """Members of an ensemble, each with a model of its own."""
    starts = [NET.init(random.key(k), 3) for k in range(3)]
    ends = [moved(p, seed=k) for k, p in enumerate(starts)]
    loss = jax.jit(lambda p0, p: (taylor(NET, p0, order)(p, X) ** 2).sum())
    stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(loss, 1)))(stack(starts), stack(ends))
    h = 1e-5
    for k, (p0, p) in enumerate(zip(starts, ends)):
        np.testing.assert_allclose(values[k], loss(p0, p), rtol=1e-12)
        direction = jax.tree.map(lambda a, b: (a - b) / h, moved(p, h, seed=7), p)
        step = (loss(p0, moved(p, h, seed=7)) - loss(p0, moved(p, -h, seed=7))) / (2 * h)
        products = jax.tree.map(lambda slope, d, k=k: (slope[k] * d).sum(), slopes, direction)
        np.testing.assert_allclose(sum(jax.tree.leaves(products)), step, rtol=1e-7)


@pytest.mark.parametrize("order", [1, 2])
def test_single_precision_stays_single(order):
    params = NET.init(random.key(0), 3, "float32")
    p, x = moved(params), X.astype("float32")
    model = jax.jit(taylor(NET, params, order))
    found, pull = jax.eval_shape(model, p, x), jax.grad(lambda p: model(p, x).sum())
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves((found, jax.eval_shape(pull, p))))
    np.testing.assert_allclose(
        model(p, x), jax.jit(taylor(NET, double(params), order))(double(p), X), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("name", MODELS)
def test_other_parameters_than_the_expansions_are_refused(name):
    f, params = MODELS[name]()
    model = linearize(f, params)
    assert jax.eval_shape(model, params, X).shape == (4, 2)
    wrong = [jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], params), jax.tree.leaves(params)[:1], None]
    for p in wrong:
        with pytest.raises(
            ValueError, match="(?s)params hold .*; expected .*, as the parameters of the expansion"
        ):
            jax.eval_shape(model, p, X)


# --- outputs that are trees, leaves that are not numbers to differentiate


@pytest.mark.parametrize("order", [1, 2])
def test_outputs_may_be_a_tree(order):
    """Every floating array is expanded; the rest is as it was at the start."""
    params = NET.init(random.key(0), 3)
    p, plain = moved(params), taylor(NET, params, order)
    model = taylor(
        lambda p, x: ({"out": NET.apply(p, x)}, (x, jnp.arange(3), p[0]["w"] ** 2, p[0]["w"] > 0)),
        params,
        order,
    )
    out, (x, numbers, squares, signs) = jax.jit(lambda model, p: model(p, X))(model, p)
    np.testing.assert_allclose(out["out"], plain(p, X), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(numbers, np.arange(3))
    np.testing.assert_array_equal(signs, params[0]["w"] > 0)
    w, w0 = p[0]["w"], params[0]["w"]
    np.testing.assert_allclose(squares, w0 * (2 * w - w0) if order == 1 else w**2, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("flag", [True, np.array(True), jnp.array(True)])
def test_flags_and_counters_stay_as_they_are(flag, order):
    f = lambda p, x: jnp.where(p["on"], x @ p["w"], 0) * p["count"]
    params = {"w": np.ones((3, 2)), "on": flag, "count": np.int32(3)}
    p = params | {"w": 2 * params["w"]}
    np.testing.assert_allclose(taylor(f, params, order)(p, X), f(p, X), rtol=1e-12)
    np.testing.assert_allclose(taylor(f, params, order)(p | {"on": False}, X), f(p, X), rtol=1e-12)


def test_parameters_of_the_expansion_are_arguments_of_the_program():
    """Models of new parameters compile once, and the program's text does not hold them."""
    wide = MLP(2, 500, 1, "tanh")
    run = jax.jit(lambda model, p, x: model(p, x))
    starts = [wide.init(random.key(k), 3) for k in range(2)]
    text = run.lower(linearize(wide, starts[0]), starts[1], X).as_text()
    assert len(text) < 20_000
    run(linearize(wide, starts[0]), starts[1], X)
    with compilations() as made:
        found = run(linearize(wide, starts[1]), starts[1], X)
    assert made == []
    np.testing.assert_allclose(found, wide.apply(starts[1], X), rtol=0, atol=1e-12)
