"""The structured kernel of any function against its Jacobians: libraries' models, transformations, ties,
loops."""

from functools import partial

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax, random

from ntk_helpers import MLP, empirical_ntk, empirical_ntk_cost
from ntk_helpers.neural_tangents_compat import stax

OUTPUTS = ("full", "diagonal", "trace")


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def how(f, params, x, **arguments):
    cost = empirical_ntk_cost(f, params, x, method="structured", **arguments)
    return {parameter.name: parameter.how for parameter in cost.parameters}


def assert_equals_jacobian(f, params, x1, x2=None, outputs=OUTPUTS):
    """All in one compilation; the other outputs are parts of the full kernel."""

    @jax.jit
    def kernels(params, x1, x2):
        ours = {output: empirical_ntk(f, params, x1, x2, output, "structured") for output in outputs}
        return ours, empirical_ntk(f, params, x1, x2, "full", "jacobian")

    ours, full = kernels(params, x1, x2)
    diagonal = np.einsum("ijaa->ija", full)
    for output, kernel in ours.items():
        expected = {"full": full, "diagonal": diagonal, "trace": diagonal.mean(-1)}[output]
        np.testing.assert_allclose(kernel, expected, rtol=0, atol=1e-10 * np.abs(full).max())


# --- models of four libraries


class LinenCNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), strides=2)(x))
        x = nn.avg_pool(nn.gelu(nn.Conv(5, (2, 1), kernel_dilation=2, padding="VALID")(x)), (2, 2))
        return nn.Dense(3)(x.reshape(len(x), -1))


class LinenResNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), use_bias=False)(x)
        for norm in (
            nn.LayerNorm,
            partial(nn.GroupNorm, num_groups=2),
            partial(nn.BatchNorm, use_running_average=True),
        ):
            x = x + nn.Conv(4, (3, 3))(nn.relu(norm()(x)))
        return nn.Dense(2)(x.mean((1, 2)))


class LinenTransformer(nn.Module):
    """Pre-norm, with one embedding for tokens and logits."""

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(11, 8)
        x = embed(tokens) + self.param("positions", nn.initializers.normal(), (tokens.shape[1], 8))
        for _ in range(2):
            y = nn.LayerNorm()(x)
            x = x + nn.MultiHeadDotProductAttention(num_heads=2)(y, mask=nn.make_causal_mask(tokens))
            x = x + nn.Dense(8)(nn.gelu(nn.Dense(16)(nn.LayerNorm()(x))))
        return embed.attend(nn.LayerNorm()(x))[:, -1]


def linen(model, x):
    variables = jax.jit(model.init)(random.key(0), x)
    rest = {name: value for name, value in variables.items() if name != "params"}
    return lambda params, x: model.apply({"params": params, **rest}, x), variables["params"]


class NNXBlock(nnx.Module):
    def __init__(self, rngs):
        self.inside = nnx.Linear(3, 6, rngs=rngs, param_dtype=float)
        self.norm = nnx.LayerNorm(6, rngs=rngs, param_dtype=float)
        self.outside = nnx.Linear(6, 2, rngs=rngs, param_dtype=float)

    def __call__(self, x):
        return self.outside(nnx.silu(self.norm(self.inside(x))))


def nnx_model(make):
    graph, params = nnx.split(make(nnx.Rngs(0)))
    return lambda params, x: nnx.merge(graph, params)(x), params


def equinox_model(model):
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    return lambda params, x: jax.vmap(eqx.combine(params, rest))(x), params


def equinox_cnn(key):
    keys = random.split(key, 2)
    layers = [
        eqx.nn.Conv2d(2, 4, 3, key=keys[0]),
        jax.nn.tanh,
        eqx.nn.MaxPool2d(2, 2),
        jnp.ravel,
        eqx.nn.Linear(36, 2, key=keys[1]),
    ]
    return eqx.nn.Sequential(
        [layer if isinstance(layer, eqx.Module) else eqx.nn.Lambda(layer) for layer in layers]
    )


def stax_model(*layers, shape):
    init, f, _ = stax.serial(*layers)
    return f, init(random.key(0), shape)[1]


def stax_resnet():
    branch = stax.serial(stax.Relu(), stax.Conv(4, (3, 3), padding="SAME"))
    block = stax.serial(stax.FanOut(2), stax.parallel(branch, stax.Identity()), stax.FanInSum())
    layers = [stax.Conv(4, (3, 3), (2, 2), "SAME", b_std=0.1), block, stax.GlobalAvgPool(), stax.Dense(3)]
    return stax_model(*layers, shape=(-1, 8, 8, 2))


VECTORS, IMAGES, TOKENS = (
    normal(3, 4, 3),
    normal(1, 4, 8, 8, 2),
    np.random.default_rng(2).integers(0, 11, (4, 5)),
)
STAX = [stax.Dense(6, b_std=0.1), stax.Erf(), stax.LayerNorm(), stax.Dense(2)]
MODELS = {
    "linen CNN": (lambda: linen(LinenCNN(), IMAGES), IMAGES),
    "linen ResNet": (lambda: linen(LinenResNet(), IMAGES), IMAGES),
    "linen transformer": (lambda: linen(LinenTransformer(), TOKENS), TOKENS),
    "nnx MLP": (lambda: nnx_model(NNXBlock), VECTORS),
    "equinox MLP": (lambda: equinox_model(eqx.nn.MLP(3, 2, 7, 2, key=random.key(0))), VECTORS),
    "equinox CNN": (lambda: equinox_model(equinox_cnn(random.key(0))), np.moveaxis(IMAGES, -1, 1)),
    "stax MLP": (lambda: stax_model(*STAX, shape=(-1, 3)), VECTORS),
    "stax ResNet": (stax_resnet, IMAGES),
}
# Biases by head, and positions added to the embedding: their blocks are the deltas themselves.
OF_BLOCKS = [
    "['positions']",
    *(
        f"['MultiHeadDotProductAttention_{k}']['{name}']['bias']"
        for k in (0, 1)
        for name in ("query", "key", "value")
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_models_of_libraries(name):
    make, x = MODELS[name]
    f, params = make()
    params = jax.tree.map(lambda p: p.astype(float), params)
    assert_equals_jacobian(f, params, x, None, ("full", "trace"))
    parameters = empirical_ntk_cost(f, params, x, method="structured").parameters
    assert not [
        p
        for p in parameters
        if p.how == "block" and max(p.shape) < np.prod(p.shape) and p.name not in OF_BLOCKS
    ]


# --- transformations of JAX


def dense(params, x):
    return jnp.tanh(x @ params["w"] + params["b"]) @ params["v"]


DENSE = {"w": normal(4, 3, 5), "b": normal(5, 5), "v": normal(6, 5, 2)}


@jax.custom_jvp
def doubled_slope(x):
    return jnp.sin(x)


doubled_slope.defjvp(lambda primals, tangents: (jnp.sin(*primals), 2 * jnp.cos(*primals) * tangents[0]))


@jax.custom_vjp
def straight_through(w, x):
    return x @ jnp.round(w)


straight_through.defvjp(
    lambda w, x: (x @ jnp.round(w), (w, x)), lambda saved, d: (saved[1].T @ d, d @ saved[0].T)
)

TRANSFORMED = {
    "jit": jax.jit(dense),
    "remat": jax.checkpoint(dense),
    "nested": jax.jit(jax.checkpoint(jax.jit(dense))),
    "vmap": lambda p, x: jax.vmap(dense, (None, 0))(p, x),
    "custom_jvp": lambda p, x: doubled_slope(x @ p["w"] + p["b"]) @ p["v"],
    "custom_jvp of a weight": lambda p, x: jnp.tanh(x @ doubled_slope(p["w"]) + p["b"]) @ p["v"],
    "custom_vjp": lambda p, x: jnp.tanh(straight_through(p["w"], x) + p["b"]) @ p["v"],
    "a weight scaled, masked, transposed": lambda p, x: (
        jnp.tanh(0.3 * p["w"].T @ x.T - p["b"][:, None]).T @ (p["v"] / 7 * (p["v"] > 0))
    ),
    "a weight reshaped": lambda p, x: (
        jnp.tanh(x.reshape(-1, 1, 3) @ p["w"].reshape(1, 3, 5)).reshape(-1, 5) @ p["v"]
    ),
    "a weight in parts": lambda p, x: (
        sum(jnp.tanh(x @ part) for part in jnp.split(p["w"][:, :4], 2, axis=1)) + p["b"][:2] @ p["v"][:2]
    ),
    "a product of weights": lambda p, x: x @ (p["w"] @ p["v"]) * p["b"][0],
    "a normalized weight": lambda p, x: jnp.tanh(x @ (p["w"] / jnp.linalg.norm(p["w"], axis=0))) @ p["v"],
    "a choice": lambda p, x: lax.cond(x[0, 0] > 0, dense, lambda p, x: x @ p["w"] @ p["v"], p, x),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transformations(name):
    assert_equals_jacobian(TRANSFORMED[name], DENSE, normal(7, 4, 3), normal(8, 3, 3))


@pytest.mark.parametrize(
    "f",
    [
        lambda p, x: jnp.einsum("nbi,bio->nbo", x, p[:2]).reshape(len(x), -1),
        lambda p, x: x[:, 0] @ (p[1, :3] * jnp.array([[1.0], [0.0], [2.0]])),
    ],
    ids=["batch", "mask"],
)
def test_a_part_of_a_weight_whose_axis_is_in_two_factors(f):
    assert_equals_jacobian(f, normal(0, 4, 3, 2), normal(1, 5, 2, 3))


def test_a_weight_that_enters_otherwise_is_alone_in_falling_back():
    ways = how(TRANSFORMED["a normalized weight"], DENSE, normal(7, 4, 3))
    assert ways == {"['b']": "block", "['v']": "matrix product", "['w']": "block"}


# --- loops and ties


def recurrent(params, x):
    def step(h, u):
        return jnp.tanh(h @ params["w"] + u[:, None] * params["u"]), h @ params["v"]

    h, outs = lax.scan(step, jnp.zeros((len(x), 4)), x.T)
    return h @ params["v"] + outs.sum(0)


def deep(params, x):
    """Layers of stacked weights, two steps inside each, in reverse."""

    def layer(h, w):
        return lax.fori_loop(0, 2, lambda _, h: jnp.tanh(h @ w), h), None

    return lax.scan(jax.checkpoint(layer), x, params, reverse=True)[0]


def one_step(params, x):
    return lax.scan(lambda h, w: (jnp.sin(h @ w), None), x, params[:1])[0]


def tied(params, tokens):
    h = jnp.tanh(params["embed"][tokens] @ params["mix"])
    return (jnp.tanh(h @ params["mix"].T) @ params["embed"].T).mean(1)


def autoencoder(params, x):
    return jnp.tanh(x @ params) @ params.T + (x @ params @ params.T) ** 2


LOOPS_AND_TIES = {
    "recurrent": (
        recurrent,
        {"w": normal(9, 4, 4), "u": normal(10, 4), "v": normal(11, 4, 2)},
        normal(12, 3, 5),
    ),
    "deep": (deep, normal(9, 3, 4, 4), normal(12, 3, 4)),
    "one step": (one_step, normal(9, 3, 4, 4), normal(12, 3, 4)),
    "tied embedding": (
        tied,
        {"embed": normal(9, 7, 4), "mix": normal(10, 4, 4)},
        np.random.default_rng(0).integers(-7, 9, (3, 5)),
    ),
    "autoencoder": (autoencoder, normal(9, 4, 3), normal(12, 3, 4)),
}


@pytest.mark.parametrize("name", LOOPS_AND_TIES)
def test_loops_and_ties(name):
    f, params, x = LOOPS_AND_TIES[name]
    assert_equals_jacobian(f, params, x, x[:2])
    assert "block" not in [way for name, way in how(f, params, x).items() if "u" not in name]


def test_ties_take_pairs_or_blocks_whichever_is_cheaper():
    """Both equal the Jacobians; with wide weights and few points pairs are cheaper, with narrow ones
    blocks."""
    x = normal(12, 2, 60)
    assert_equals_jacobian(autoencoder, normal(9, 60, 50), x)
    wide, narrow = (
        empirical_ntk_cost(autoencoder, normal(9, 60, m), x, method="structured") for m in (50, 1)
    )
    assert wide.flops < empirical_ntk_cost(autoencoder, normal(9, 60, 50), x, method="jacobian").flops
    assert wide.parameters[0].how == "matrix product" and narrow.flops < wide.flops


@pytest.mark.parametrize(
    "options",
    [
        {"window_strides": (2, 3), "padding": "SAME", "rhs_dilation": (2, 1)},
        {"window_strides": (1, 2), "padding": ((3, 0), (1, 2)), "lhs_dilation": (2, 1)},
        {"window_strides": (1, 1), "padding": "VALID", "feature_group_count": 2},
    ],
    ids=str,
)
def test_every_convolution(options):
    groups = options.get("feature_group_count", 1)

    def f(w, x):
        x = lax.conv_general_dilated(x, w, dimension_numbers=("NHWC", "OHWI", "NHWC"), **options)
        return jnp.tanh(x).sum((1, 2))

    w = normal(13, 4, 3, 2, 4 // groups)
    assert_equals_jacobian(f, w, normal(14, 3, 7, 6, 4))
    assert how(f, w, normal(14, 3, 7, 6, 4)) == {"": "convolution" if groups == 1 else "block"}


def test_a_shared_delta_is_contracted_once():
    """A bias costs no product of its own: the compiled kernel has as many with biases as without."""

    def products(f, params):
        x = normal(15, 6, 3)
        return (
            jax.jit(lambda p: empirical_ntk(f, p, x, method="structured"))
            .lower(params)
            .compile()
            .as_text()
            .count(" dot(")
        )

    without = {name: value for name, value in DENSE.items() if name != "b"}
    assert products(dense, DENSE) == products(lambda p, x: dense(p | {"b": 1.0}, x), without)


def test_mixed_precision_and_numbers_as_parameters():
    params = {"w": jnp.asarray(normal(4, 3, 5), jnp.bfloat16), "v": normal(6, 5, 2), "scale": 2.0}
    f = lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"] * p["scale"]
    ours, theirs = (empirical_ntk(f, params, normal(7, 4, 3), method=m) for m in ("structured", "jacobian"))
    np.testing.assert_allclose(ours, theirs, atol=0.03 * np.abs(theirs).max())


def test_a_part_of_the_output_may_not_depend_on_the_inputs():
    f = lambda p, x: jnp.zeros((len(x), 1)) + p["a"] @ p["b"]
    assert_equals_jacobian(f, {"a": normal(0, 3), "b": normal(1, 3, 2)}, normal(2, 4, 2))


# --- memory


@pytest.mark.slow
@pytest.mark.parametrize("method", ["structured", "jacobian", "ntk_vp"])
@pytest.mark.parametrize("output", OUTPUTS)
def test_blocks_give_the_same_kernel(method, output):
    """Of a network deep enough that the kernel changes when its outputs are exchanged."""
    net = MLP(depth=3, width=6, d_out=2, activation="tanh")
    params, x1, x2 = net.init(random.key(0), 3), normal(16, 7, 3), normal(17, 5, 3)
    for x in (None, x2):
        whole = empirical_ntk(net, params, x1, x, output, method)
        cost = empirical_ntk_cost(net, params, x1, x, output, method)
        budget = (cost.bytes + cost.result_bytes) // 2
        assert empirical_ntk_cost(net, params, x1, x, output, method, budget).block < cost.block
        blocks = empirical_ntk(net, params, x1, x, output, method, budget)
        np.testing.assert_allclose(blocks, whole, rtol=0, atol=1e-12 * np.abs(whole).max())


def test_what_cannot_fit_is_refused_before_any_work():
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), DENSE)
    points = jax.ShapeDtypeStruct((10**6, 3), float)
    with pytest.raises(
        ValueError,
        match=r"kernel of shape \(1000000, 1000000, 2, 2\) takes 32 TB.*budget is 8.59 GB.*"
        r"trace.* takes 8 TB.*tiled\(\.\.\., path=\.\.\.\)",
    ):
        empirical_ntk_cost(dense, shapes, points, memory_budget=2**33)


def test_the_cost_names_every_parameter_and_how_it_is_handled():
    cost = empirical_ntk_cost(dense, DENSE, normal(0, 4, 3), method="structured")
    assert [(p.name, p.shape, p.how) for p in cost.parameters] == [
        ("['b']", (5,), "block"),
        ("['v']", (5, 2), "matrix product"),
        ("['w']", (3, 5), "matrix product"),
    ]
    assert "method structured, output full (4, 4, 2, 2), in blocks of 4 × 4 points" in str(
        cost
    ) and "['w'] (3, 5)" in str(cost)


def test_auto_takes_the_method_with_the_fewest_operations():
    wide = MLP(3, 64, 2)
    cost = empirical_ntk_cost(wide, wide.init(random.key(0), 8), normal(0, 50, 8))
    assert cost.method == min(cost.others, key=cost.others.get) == "structured"
    columns = empirical_ntk_cost(lambda w, x: x[:, None] * w, normal(0, 200), normal(0, 2))
    assert set(columns.others) == {"structured", "jacobian"}  # products can cancel
    assert columns.method == min(columns.others, key=columns.others.get)


# --- bad input


@pytest.mark.parametrize(
    "params, x, message",
    [
        (
            {"w": np.ones((3, 2), int)},
            np.ones((2, 3)),
            r"params\['w'\] has dtype int64; expected a floating type",
        ),
        ({"w": np.ones((3, 2))}, np.zeros((0, 3)), r"x1 has shape \(0, 3\)"),
        ({"w": np.ones((3, 2))}, np.full((2, 3), np.nan), "x1 holds 6 values"),
        (
            {"w": np.ones((3, 2, 2))},
            np.ones((2, 3)),
            r"f maps inputs of shape \(1, 3\) to .*expected an array of shape \(1, outputs\)",
        ),
    ],
)
def test_bad_input_is_refused(params, x, message):
    for ask in (empirical_ntk, empirical_ntk_cost):
        with pytest.raises(ValueError, match=message):
            ask(lambda p, x: jnp.tensordot(x, p["w"], 1), params, x)


def test_rows_that_depend_on_one_another_are_refused():
    def normalized(p, x):
        z = x @ p["w"]
        return (z - z.mean(0)) @ p["v"]

    with pytest.raises(
        ValueError, match="f changes a row's output by .* with its place in the batch or the rows"
    ):
        empirical_ntk(normalized, DENSE, normal(7, 4, 3))


def test_batch_normalization_without_an_epsilon_is_refused():
    def f(params, x):
        z = x @ params
        return (z - z.mean(0)) / z.std(0)

    x = jnp.arange(6.0).reshape(3, 2)
    with pytest.raises(ValueError, match="changes a row's output by nan with its place in the batch"):
        empirical_ntk(f, jnp.ones((2, 1)), x)
