"""What `empirical_ntk` knows of a function: analysed once, kept while it lives; which functions it takes."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ntk_helpers import MLP, empirical_ntk, empirical_ntk_cost, ntk

KEYS = jax.random.split(jax.random.key(0), 8)
X = jax.random.normal(KEYS[0], (4, 6), jnp.float32)
PARAMS = {
    "w": jax.random.normal(KEYS[1], (6, 32), jnp.float32),
    "v": jax.random.normal(KEYS[2], (32, 2), jnp.float32),
}
METHODS = ("structured", "jacobian", "ntk_vp", "auto")


def network(p, x):
    return jnp.tanh(x @ p["w"]) @ p["v"]


def by_jacobian(f, params, x):
    blocks = jax.tree.leaves(jax.jacrev(lambda p: f(p, x))(params))
    rows = jnp.concatenate([block.reshape(*block.shape[:2], -1) for block in blocks], -1)
    return jnp.einsum("iap,jbp->ijab", rows, rows)


def close(got, right, tol=1e-5):
    np.testing.assert_allclose(got, right, atol=tol * float(jnp.abs(right).max()), rtol=0)


# --- one analysis


@pytest.mark.parametrize("method", METHODS)
def test_a_function_is_traced_for_one_row_and_for_three_and_never_again(method):
    calls = []

    def f(p, x):
        calls.append(x.shape)
        return network(p, x)

    for _ in range(3):
        empirical_ntk(f, PARAMS, X, method=method)
    assert calls == [(1, 6), (3, 6)]
    empirical_ntk_cost(f, PARAMS, X, method=method)
    empirical_ntk(f, PARAMS, X[:3], X, method=method)
    jax.jit(lambda p: empirical_ntk(f, p, X, method=method))(PARAMS)
    assert len(calls) == 2


def test_other_types_and_settings_are_other_analyses():
    calls = []

    def f(p, x):
        calls.append(x.dtype)
        return network(p, x)

    wide = jax.tree.map(lambda leaf: leaf.astype(float), PARAMS)
    for params, x in ((PARAMS, X), (wide, X.astype(float)), (PARAMS, X)):
        assert empirical_ntk(f, params, x, check_rows=False).dtype == x.dtype
    assert calls == 2 * [jnp.float32] + 2 * [jnp.float64]


def test_a_closure_goes_when_its_user_lets_it_go():
    class Large:
        """Stands for a data set."""

    def make():
        data = Large()
        factor = jnp.full(3000, 2.0)

        def f(p, x, data=data):
            return factor[0] * network(p, x)

        empirical_ntk(f, PARAMS, X)
        return weakref.ref(f), weakref.ref(data)

    references = make()
    gc.collect()
    assert [reference() for reference in references] == [None, None]


class Model:
    """Holds its own array, as a module of a library does, and cannot be hashed."""

    __hash__ = None

    def __init__(self, scale):
        self.scale = jnp.asarray(scale, jnp.float32)

    def apply(self, p, x):
        return self.scale * network(p, x)

    __call__ = apply


def test_methods_and_unhashable_objects_are_functions_too():
    one, two = Model(1.0), Model(2.0)
    right = by_jacobian(network, PARAMS, X)
    for model, factor in ((one, 1), (two, 4), (one, 1)):
        close(empirical_ntk(model.apply, PARAMS, X), factor * right)
        close(empirical_ntk(model, PARAMS, X), factor * right)


# --- rows


def dropout(p, x):
    h = jnp.tanh(x @ p["w"])
    return jnp.where(jax.random.bernoulli(KEYS[3], 0.5, h.shape), 2 * h, 0.0) @ p["v"]


def normalized_over_the_batch(p, x):
    h = x @ p["w"]
    return jnp.tanh((h - h.mean(0)) / jnp.sqrt(h.var(0) + 1e-3)) @ p["v"]


DEPENDENT = {
    "dropout": dropout,
    "batch normalization": normalized_over_the_batch,
    "earlier rows": lambda p, x: jnp.tanh(jnp.cumsum(x, 0) @ p["w"]) @ p["v"],
    "later rows": lambda p, x: jnp.tanh(jnp.cumsum(x[::-1], 0)[::-1] @ p["w"]) @ p["v"],
    "softmax over rows": lambda p, x: jax.nn.softmax(network(p, x), 0),
    "size of the batch": lambda p, x: network(p, x) / len(x),
}


@pytest.mark.parametrize("points", [1, 4])
@pytest.mark.parametrize("name", DEPENDENT)
def test_rows_that_see_one_another_are_found(name, points):
    with pytest.raises(ValueError, match="expected rows that do not depend on one another"):
        empirical_ntk(DEPENDENT[name], PARAMS, X[:points])


def test_who_knows_better_switches_the_check_off():
    kernel = empirical_ntk(DEPENDENT["size of the batch"], PARAMS, X, check_rows=False)
    close(kernel, by_jacobian(network, PARAMS, X))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
@pytest.mark.parametrize("step", [0.0, 1e-5, 1e-4, 1e-2])
def test_a_centred_network_is_a_network(dtype, step):
    start = jax.tree.map(lambda leaf: leaf.astype(dtype), PARAMS)
    params = jax.tree.map(lambda leaf: leaf * jnp.asarray(1 + step, dtype), start)
    x = X.astype(dtype)
    centred = lambda p, x: network(p, x) - network(start, x)
    close(
        empirical_ntk(centred, params, x), empirical_ntk(network, params, x), tol=float(jnp.finfo(dtype).eps)
    )


def test_a_solved_equation_has_a_kernel():
    """The residual u'' - u of a network that solves it is nearly zero: a difference of large numbers."""
    params = {
        "w": 3 * jax.random.normal(KEYS[4], (1, 64), jnp.float32),
        "b": jax.random.normal(KEYS[5], (64,), jnp.float32),
        "v": jnp.zeros((64, 1), jnp.float32),
    }
    u = lambda p, z: (jnp.tanh(z @ p["w"] + p["b"]) @ p["v"])[0]
    residual = lambda p, zs: jax.vmap(lambda z: (jax.hessian(u, 1)(p, z)[0, 0] - u(p, z))[None])(zs)
    z = jnp.linspace(0, 1, 6, dtype=jnp.float32)[:, None]
    rows = jax.vmap(jax.grad(lambda v, z: residual(params | {"v": v}, z[None])[0, 0]), (None, 0))(
        params["v"], z
    )
    at_zero = jax.grad(lambda v: u(params | {"v": v}, z[0]))(params["v"])
    system = np.concatenate([rows[..., 0], at_zero.T]).astype(float)
    v = np.linalg.lstsq(system, np.r_[np.zeros(6), 1.0], rcond=None)[0]
    solved = params | {"v": jnp.asarray(v[:, None], jnp.float32)}
    close(empirical_ntk(residual, solved, z), by_jacobian(residual, solved, z))


def test_a_function_may_close_over_what_is_traced():
    kernel = lambda scale: empirical_ntk(lambda p, x: scale * network(p, x), PARAMS, X, output="trace").sum()
    assert jnp.allclose(jax.jit(kernel)(2.0), 4 * kernel(1.0), rtol=1e-5)
    assert jnp.allclose(jax.grad(kernel)(2.0), 4 * kernel(1.0), rtol=1e-5)


# --- what enters


def fourier(p, x):
    z = (x.astype(jnp.complex64) @ p["w"]) * jnp.exp(1j * p["phase"])
    return jnp.real(z @ p["v"].astype(jnp.complex64) * (1 + 2j))


@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")  # of JAX 0.7, in its own transposition
@pytest.mark.parametrize("method", METHODS)
def test_real_weights_among_complex_numbers(method):
    params = PARAMS | {"phase": jax.random.normal(KEYS[6], (32,), jnp.float32)}
    close(empirical_ntk(fourier, params, X, method=method), by_jacobian(fourier, params, X))


@jax.custom_vjp
def sign(x):
    return jnp.sign(x)


sign.defvjp(lambda x: (jnp.sign(x), x), lambda x, g: (g * (jnp.abs(x) < 1),))


def test_a_function_without_a_forward_derivative():
    binary = lambda p, x: sign(x @ p["w"]) @ p["v"]
    right = by_jacobian(binary, PARAMS, X)
    for method in ("auto", "structured", "jacobian"):
        close(empirical_ntk(binary, PARAMS, X, method=method), right)
    with pytest.raises(ValueError, match="f has no forward derivative, which method 'ntk_vp' takes"):
        empirical_ntk(binary, PARAMS, X, method="ntk_vp")


def test_auto_never_takes_products_that_can_cancel():
    columns = lambda w, x: x[:, None] * w
    cost = empirical_ntk_cost(columns, jnp.ones(2000), jnp.ones(2))
    assert cost.method != "ntk_vp" and set(cost.others) == {"structured", "jacobian"}


@pytest.mark.parametrize("method", METHODS)
def test_a_parameter_of_size_0_adds_nothing(method):
    f = lambda p, x: network(p, x) + p["none"].sum()
    params = PARAMS | {"none": jnp.zeros(0, jnp.float32)}
    close(empirical_ntk(f, params, X, method=method), by_jacobian(network, PARAMS, X))


@pytest.mark.parametrize("method", METHODS)
def test_outputs_without_an_axis_are_one_output(method):
    one = lambda p, x: network(p, x)[:, 0]
    kernel = empirical_ntk(one, PARAMS, X, method=method)
    assert kernel.shape == (4, 4, 1, 1)
    close(kernel[..., 0, 0], empirical_ntk(network, PARAMS, X)[..., 0, 0])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "params are {}; expected an array at least"),
        (
            PARAMS | {"w": PARAMS["w"].at[1, 1].set(jnp.nan)},
            r"params\['w'\] holds 1 values that are NaN or infinite",
        ),
        (
            {"params": PARAMS, "batch_stats": PARAMS},
            "hold the collections .* of a Flax module; expected the parameters alone",
        ),
        (
            PARAMS | {"steps": jnp.arange(3)},
            r"params\['steps'\] has dtype int.*; expected a floating type: close f over",
        ),
    ],
)
def test_parameters_that_no_kernel_is_taken_in(params, message):
    for ask in (empirical_ntk, empirical_ntk_cost):
        with pytest.raises(ValueError, match=message):
            ask(network, params, X)


@pytest.mark.parametrize("axis", [AxisType.Auto, AxisType.Explicit])
def test_sharded_arguments(axis):
    mesh = jax.make_mesh((1,), ("data",), axis_types=(axis,))
    x = jax.device_put(X, NamedSharding(mesh, PartitionSpec("data")))
    params = jax.device_put(PARAMS, NamedSharding(mesh, PartitionSpec("data")))
    right = by_jacobian(network, PARAMS, X)
    close(empirical_ntk(network, params, x), right)
    close(empirical_ntk(network, params, x, X[:2]), right[:, :2])
    close(jax.jit(lambda x: empirical_ntk(network, PARAMS, x))(x), right)
    net = MLP(3, 8)
    close(ntk(net, x), ntk(net, X))
    close(net.apply(net.init(KEYS[0], 6), x), net.apply(net.init(KEYS[0], 6), X))


@pytest.mark.skipif(not hasattr(jax, "set_mesh"), reason="this JAX has no mesh for a whole program")
def test_a_mesh_for_the_whole_program():
    with jax.set_mesh(jax.make_mesh((1,), ("data",), axis_types=(AxisType.Explicit,))):
        x = jax.device_put(X, PartitionSpec("data"))
        params = jax.device_put(PARAMS, PartitionSpec("data"))
        close(empirical_ntk(network, params, x), by_jacobian(network, PARAMS, X))
        close(jax.jit(lambda x: ntk(MLP(3, 8), x))(x), ntk(MLP(3, 8), X))


def test_images_are_told_what_to_do():
    net = MLP(2, 8)
    with pytest.raises(ValueError, match=r"x1 has shape \(5, 4, 4, 1\).*x1.reshape\(len\(x1\), -1\)"):
        empirical_ntk(net, net.init(KEYS[0], 16), np.ones((5, 4, 4, 1)))
    with pytest.raises(ValueError, match=r"x1 has dtype uint8; expected a floating type"):
        empirical_ntk(net, net.init(KEYS[0], 16), np.ones((5, 16), np.uint8))


@pytest.mark.parametrize("name", [*DEPENDENT, "reversed"])
@pytest.mark.parametrize("start", ["itself", "a zero readout"])
def test_dependence_is_found_where_outputs_cancel(name, start):
    f = (DEPENDENT | {"reversed": lambda p, x: network(p, x)[::-1]})[name]
    zero = PARAMS | {"v": 0 * PARAMS["v"]}
    g, params = (lambda p, x: f(p, x) - f(PARAMS, x), PARAMS) if start == "itself" else (f, zero)
    with pytest.raises(ValueError, match="expected rows that do not depend on one another"):
        empirical_ntk(g, params, X)


def test_half_precision_is_summed_in_float32():
    x = jnp.arange(512.0, dtype=jnp.bfloat16).reshape(2, 256) % 7
    kernel = empirical_ntk(lambda w, x: x @ w, jnp.zeros((256, 1), jnp.bfloat16), x)
    exact = np.asarray(x, float) @ np.asarray(x, float).T
    assert kernel.dtype == jnp.bfloat16
    np.testing.assert_array_equal(kernel[..., 0, 0], jnp.asarray(exact, jnp.bfloat16))


def test_what_was_traced_once_is_not_kept():
    model = Model(1.0)

    def inside(scale):
        model.scale = scale
        return empirical_ntk(model.apply, PARAMS, X, output="trace").sum()

    traced = jax.jit(inside)(jnp.float32(2.0))
    model.scale = jnp.float32(2.0)
    assert jnp.allclose(empirical_ntk(model.apply, PARAMS, X, output="trace").sum(), traced, rtol=1e-5)
