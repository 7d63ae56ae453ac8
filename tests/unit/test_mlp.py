"""The network: shapes, parameterizations, statistics of initialization, refused descriptions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_helpers import MLP


@pytest.mark.parametrize("depth, shapes", [(1, [(3, 2)]), (3, [(3, 5), (5, 5), (5, 2)])])
def test_shapes(depth, shapes, x1):
    net = MLP(depth, 5, 2)
    params = net.init(jax.random.key(0), 3)
    assert [p["w"].shape for p in params] == shapes
    assert [p["b"].shape for p in params] == [(m,) for _, m in shapes]
    assert net.apply(params, x1).shape == (4, 2)
    assert net.init(jax.random.key(0), 3, jnp.float32)[0]["w"].dtype == jnp.float32


def test_depth_counts_weight_layers_and_depth_1_is_linear(x1):
    net = MLP(1, 99, 2, sigma_w2=3.0, sigma_b2=0.5)
    (layer,) = net.init(jax.random.key(0), 3)
    np.testing.assert_allclose(
        net.apply([layer], x1), x1 @ layer["w"] + 0.5**0.5 * layer["b"], rtol=1e-12
    )  # σ_w²/d = 1


def test_the_forward_pass_by_hand(x1):
    net = MLP(2, 4, 1, "tanh", 1.7, 0.3)
    first, second = net.init(jax.random.key(1), 3)
    hidden = np.tanh((1.7 / 3) ** 0.5 * x1 @ first["w"] + 0.3**0.5 * first["b"])
    out = (1.7 / 4) ** 0.5 * hidden @ second["w"] + 0.3**0.5 * second["b"]
    np.testing.assert_allclose(net.apply([first, second], x1), out, rtol=1e-12)


def test_both_parameterizations_draw_the_same_function(x1):
    nets = [MLP(3, 6, 2, "gelu", 1.3, 0.2, kind) for kind in ("ntk", "standard")]
    a, b = (net.apply(net.init(jax.random.key(2), 3), x1) for net in nets)
    np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("kind, w_var, b_var", [("ntk", 1.0, 1.0), ("standard", 1.5 / 200, 0.25)])
def test_variances_of_initialization(kind, w_var, b_var):
    w, b = (MLP(3, 200, 1, "relu", 1.5, 0.25, kind).init(jax.random.key(3), 2)[1][key] for key in "wb")
    for sample, variance in ((w, w_var), (b, b_var)):
        assert np.mean(np.square(sample)) == pytest.approx(variance, rel=4 * (2 / sample.size) ** 0.5)
        assert abs(np.mean(sample)) < 4 * (variance / sample.size) ** 0.5


def test_layers_are_independent_draws():
    first, second, third = MLP(3, 40, 40).init(jax.random.key(4), 40)
    for a, b in (
        (first["w"], second["w"]),
        (second["w"], third["w"]),
        (first["b"], second["b"]),
        (first["w"][0], first["b"]),
    ):
        assert abs(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]) < 4 / np.size(b) ** 0.5


def test_variances_are_leaves_and_the_rest_is_static(x1):
    net = MLP(2, 4, sigma_w2=1.5, sigma_b2=0.5)
    assert jax.tree.leaves(net) == [1.5, 0.5]
    params = net.init(jax.random.key(0), 3)
    gradient = jax.jit(jax.grad(lambda net: net.apply(params, jnp.asarray(x1)).sum()))(net)
    assert gradient.sigma_w2 != 0 and gradient.sigma_b2 != 0


def test_the_tree_of_a_network_may_hold_what_its_constructor_refuses():
    net = MLP(3, (4, 5), sigma_w2=1.5, sigma_b2=0.5)
    negative = jax.tree.map(lambda v: -v, net)
    assert (negative.sigma_w2, negative.sigma_b2, negative.width) == (-1.5, -0.5, (4, 5))
    assert jax.tree.map(lambda v: -v, negative) == net
    assert jax.tree.structure(net) != jax.tree.structure(MLP(3, (5, 4)))
    assert [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(net)] == [
        ".sigma_w2",
        ".sigma_b2",
    ]


def test_any_integers_are_sizes(x1):
    net = MLP(np.int64(3), [np.int32(5), 7], np.int8(2))
    assert (net.depth, net.width, net.d_out) == (3, (5, 7), 2) and type(net.depth) is int
    assert hash(net) == hash(MLP(3, (5, 7), 2))
    assert net.apply(net.init(jax.random.key(0), np.int64(3)), x1).shape == (4, 2)


@pytest.mark.parametrize("kind", ["ntk", "standard"])
def test_widths_by_layer(kind, x1):
    net = MLP(4, (5, 5, 300), 2, "tanh", 1.5, 0.25, kind)
    params = net.init(jax.random.key(3), 3)
    assert [p["w"].shape for p in params] == [(3, 5), (5, 5), (5, 300), (300, 2)]
    assert [p["b"].shape for p in params] == [(5,), (5,), (300,), (2,)]
    sample, variance = params[2]["w"], 1.0 if kind == "ntk" else 0.3
    assert np.mean(np.square(sample)) == pytest.approx(variance, rel=4 * (2 / sample.size) ** 0.5)
    assert net.apply(params, x1).shape == (4, 2)


def test_equal_widths_draw_what_one_width_draws():
    for one, many in ((MLP(3, 5), MLP(3, (5, 5))), (MLP(1, 5), MLP(1, ()))):
        for a, b in zip(*(jax.tree.leaves(net.init(jax.random.key(0), 3)) for net in (one, many))):
            np.testing.assert_array_equal(a, b)


def test_the_stream_of_random_numbers_is_kept():
    """Stored outputs of the chapters hang on it. In two programs, the last bits are the compiler's."""
    hidden, head = (
        jax.random.normal(k, shape)
        for k, shape in zip(jax.random.split(jax.random.key(0)), ((10, 5), (6, 2)))
    )
    for params, block in zip(MLP(3, 5, 2).init(jax.random.key(0), 3), (hidden[:4], hidden[4:], head)):
        np.testing.assert_allclose(params["w"], block[:-1], rtol=1e-14)
        np.testing.assert_allclose(params["b"], block[-1], rtol=1e-14)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"depth": 0}, "depth is 0"),
        ({"depth": 2.0}, "depth is 2.0"),
        ({"width": -3}, "width is -3"),
        ({"d_out": 0}, "d_out is 0"),
        ({"activation": "swish"}, "activation is 'swish'; expected one of 'relu'"),
        ({"parameterization": "ntp"}, "parameterization is 'ntp'; expected one of 'ntk', 'standard', 'mup'"),
        ({"alpha": 0.0}, "alpha is 0.0; expected a positive number"),
        ({"alpha": "1"}, "alpha is '1'; expected a positive number"),
        ({"alpha": float("inf")}, "alpha is inf; expected a positive number"),
        ({"sigma_w2": -1.0}, "sigma_w2 is -1.0"),
        ({"sigma_b2": float("nan")}, "sigma_b2 is nan"),
        ({"sigma_w2": float("inf")}, "sigma_w2 is inf"),
        ({"sigma_w2": "2"}, "sigma_w2 is '2'"),
        ({"sigma_b2": None}, "sigma_b2 is None"),
        ({"sigma_b2": jnp.asarray(-0.1)}, "sigma_b2 is Array"),
        ({"depth": True}, "depth is True"),
        ({"width": (3, 3)}, r"width is \(3, 3\); expected one number, or 1 for depth 2"),
        ({"width": (0,)}, "width is 0"),
    ],
)
def test_impossible_networks_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        MLP(**({"depth": 2, "width": 3} | wrong))


def test_wrong_inputs_and_parameters_are_refused(x1):
    net = MLP(2, 3)
    with pytest.raises(ValueError, match="d_in is 0"):
        net.init(jax.random.key(0), 0)
    params = net.init(jax.random.key(0), 5)
    for wrong in (params, MLP(2, 4).init(jax.random.key(0), 3), MLP(3, 3).init(jax.random.key(0), 3), []):
        with pytest.raises(
            ValueError,
            match=r"params hold .*; expected shapes \[\{'w': \(3, 3\), 'b': \(3,\)\}, .*, as init\(key, 3\)",
        ):
            net.apply(wrong, x1)
    with pytest.raises(ValueError, match=r"x1 has shape \(3,\)"):
        net.apply(params, x1[0])
