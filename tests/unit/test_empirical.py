"""The finite network's kernel: every method against a Jacobian written here, and against infinite width."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_helpers import MLP, empirical_ntk, ntk

METHODS = ("structured", "jacobian", "ntk_vp", "auto")
OUTPUTS = ("full", "trace", "diagonal")
NETS = [
    MLP(3, 6, 2, "relu", 1.7, 0.3),
    MLP(2, 6, 1, "tanh", 1.7, 0.0, "standard"),
    MLP(1, 6, 3, "gelu", 1.7, 0.3, "standard"),
]


def by_definition(f, params, x1, x2):
    """Θ[i, j, a, b], one gradient at a time."""

    def gradients(x):
        jacobian = jax.tree.leaves(jax.jacobian(f)(params, jnp.asarray(x)))
        return jnp.concatenate([leaf.reshape(len(x), leaf.shape[1], -1) for leaf in jacobian], axis=2)

    return jnp.einsum("iap,jbp->ijab", gradients(x1), gradients(x2))


def reduced(full, output):
    diagonal = np.einsum("ijaa->ija", full)
    return {"full": full, "diagonal": diagonal, "trace": diagonal.mean(-1)}[output]


@pytest.mark.parametrize("net", NETS, ids=str)
@pytest.mark.parametrize("given", [True, False])
def test_all_methods_and_outputs_equal_the_definition(net, given, x1, x2):
    params = net.init(jax.random.key(0), 3)
    full = by_definition(net.apply, params, x1, x2 if given else x1)
    for output in OUTPUTS:
        for method in METHODS:
            kernel = empirical_ntk(net, params, x1, x2 if given else None, output, method)
            np.testing.assert_allclose(kernel, reduced(full, output), rtol=0, atol=1e-10 * np.abs(full).max())


@pytest.mark.parametrize("name", ["leaky_relu", "erf", "sin", "linear"])
def test_structured_equals_the_definition_for_every_other_activation(name, x1):
    net = MLP(2, 5, 2, name, 1.3, 0.2)
    params = net.init(jax.random.key(1), 3)
    np.testing.assert_allclose(
        empirical_ntk(net, params, x1), by_definition(net.apply, params, x1, x1), rtol=0, atol=1e-11
    )


def convolution(params, x):
    x = jax.lax.conv_general_dilated(
        x, params["conv"]["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = jnp.tanh(x + params["conv"]["b"]).mean((1, 2))
    return x @ params["head"]


@pytest.mark.parametrize("output", OUTPUTS)
def test_any_function_of_any_pytree_and_images(output):
    keys = jax.random.split(jax.random.key(2), 5)
    params = {
        "conv": {"w": jax.random.normal(keys[0], (3, 3, 2, 4)), "b": jax.random.normal(keys[1], (4,))},
        "head": jax.random.normal(keys[2], (4, 3)),
    }
    x1, x2 = jax.random.normal(keys[3], (3, 5, 5, 2)), jax.random.normal(keys[4], (2, 5, 5, 2))
    expected = reduced(np.asarray(by_definition(convolution, params, x1, x2)), output)
    for method in METHODS:
        np.testing.assert_allclose(
            empirical_ntk(convolution, params, x1, x2, output, method), expected, rtol=1e-10
        )


def test_parameters_may_be_plain_numbers(x1):
    params = {"scale": 2.0, "w": jnp.ones((3, 2))}
    kernel = empirical_ntk(lambda p, x: p["scale"] * x @ p["w"], params, x1, output="trace")
    np.testing.assert_allclose(kernel, 4 * x1 @ x1.T + np.outer(x1.sum(1), x1.sum(1)), rtol=1e-12)


def test_float32_stays_float32(x1):
    net = NETS[0]
    params = net.init(jax.random.key(0), 3, jnp.float32)
    for method in METHODS:
        assert empirical_ntk(net, params, x1.astype(np.float32), method=method).dtype == jnp.float32


@pytest.mark.parametrize("parameterization", ["ntk", "standard"])
def test_the_mean_over_draws_is_the_infinite_kernel(parameterization, x1):
    """ReLU without bias variance: on the diagonal exactly, at width 20; 2000 draws, four standard errors."""
    net = MLP(3, 20, 1, "relu", 1.8, 0.0, parameterization)
    x = jnp.asarray(x1[:2])
    draw = jax.jit(jax.vmap(lambda key: jnp.diag(empirical_ntk(net, net.init(key, 3), x, output="trace"))))
    sample = np.asarray(draw(jax.random.split(jax.random.key(3), 2000)))
    error = sample.mean(0) - np.diag(ntk(net, x))
    assert (np.abs(error) < 4 * sample.std(0, ddof=1) / 2000**0.5).all()


def test_the_kernel_predicts_a_small_step(x1):
    """f(θ + s Jᵀv) - f(θ) = s Θ v + O(s²), by Richardson's ratio."""
    net = NETS[1]
    params, x, v = net.init(jax.random.key(4), 3), jnp.asarray(x1), jnp.arange(1.0, 5.0)[:, None]
    push = jax.grad(lambda p: (net.apply(p, x) * v).sum())(params)

    def error(s):
        moved = net.apply(jax.tree.map(lambda p, g: p + s * g, params, push), x) - net.apply(params, x)
        return jnp.linalg.norm(moved - s * empirical_ntk(net, params, x, output="trace") @ v)

    assert error(1e-4) / error(5e-5) == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"output": "mean"}, "output is 'mean'; expected one of 'full', 'trace', 'diagonal'"),
        ({"method": "fast"}, "method is 'fast'; expected one of 'auto'"),
        ({"x1": np.ones(3)}, r"x1 has shape \(3,\)"),
        ({"x1": np.ones((2, 3), int)}, "x1 has dtype int"),
        ({"x1": np.ones((0, 3))}, r"x1 has shape \(0, 3\)"),
        ({"x1": np.full((2, 3), np.nan)}, "x1 holds 6 values"),
        ({"x2": np.full((2, 3), np.inf)}, "x2 holds 6 values"),
        ({"x2": np.ones((2, 4))}, "x1 has 3 features and x2 has 4"),
    ],
)
def test_bad_arguments_are_refused(arguments, message, x1):
    net = NETS[0]
    with pytest.raises(ValueError, match=message):
        empirical_ntk(net, net.init(jax.random.key(0), 3), **({"x1": x1} | arguments))


def test_a_function_that_does_not_batch_is_refused(x1):
    with pytest.raises(
        ValueError, match=r"f maps inputs of shape \(1, 3\) to .*; expected an array of shape \(1, outputs\)"
    ):
        empirical_ntk(lambda params, x: (x @ params).sum(0), jnp.ones((3, 2)), x1)


def test_a_generic_function_is_given_finite_matching_inputs():
    f = lambda params, x: x.reshape(len(x), -1) @ params
    with pytest.raises(ValueError, match="x1 holds 1 values"):
        empirical_ntk(f, jnp.ones((4, 2)), np.array([[[1.0, 2.0], [np.nan, 3.0]]]))
    with pytest.raises(ValueError, match="x1 has points of shape"):
        empirical_ntk(f, jnp.ones((4, 2)), np.ones((2, 2, 2)), np.ones((2, 4)))
