"""Every public function refuses what it cannot mean with a ValueError that names it, and not with an error from deep inside."""

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

from ntk_helpers import (
    MLP,
    check,
    empirical_ntk,
    empirical_ntk_cost,
    figures,
    get_activation,
    gp_log_likelihood,
    gp_posterior,
    nngp,
    ntk,
    quadrature,
    register_activation,
    sample_ntk,
    tiled,
)

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(4, 3))
NET = MLP(2, 5)
PARAMS = NET.init(KEY, 3)
WEIGHTS = jnp.ones((3, 2))
NO_NUMBERS = {
    "None": None, "ragged": [[1.0, 2.0], [3.0]], "text": "abc", "texts": [["one", "two"]], "dict": {"a": 1}, "function": abs,
    "objects": np.array([[None, 1.0]]), "dates": np.zeros((2, 3), "M8[s]"), "keys": jax.random.split(KEY, 4),
}  # fmt: skip
INPUTS = {
    "nngp": partial(nngp, NET),
    "ntk": partial(ntk, NET),
    "apply": partial(NET.apply, PARAMS),
    "sample_ntk": lambda x: sample_ntk(NET, KEY, x, 2),
    "empirical_ntk": partial(empirical_ntk, NET, PARAMS),
    "empirical_ntk of a function": partial(empirical_ntk, lambda p, x: x @ p, WEIGHTS),
    "empirical_ntk_cost": partial(empirical_ntk_cost, lambda p, x: x @ p, WEIGHTS),
    "tiled": partial(tiled, partial(ntk, NET)),
}
PAIRS = [name for name in INPUTS if name not in ("apply", "sample_ntk")]
GP = {"k_train": np.eye(3), "k_cross": np.ones((2, 3)) / 9, "k_test": np.eye(2), "y": np.ones((3, 1)), "noise": 0.1}


@pytest.mark.parametrize("kind", NO_NUMBERS)
def test_inputs_that_are_no_numbers(kind):
    for door in INPUTS.values():
        with pytest.raises(ValueError, match=r"x1 is .*; expected an array of numbers|x1 has shape \(0,\)"):
            door(NO_NUMBERS[kind])
    for name in PAIRS if kind != "None" else ():
        with pytest.raises(ValueError, match="x2 is .*; expected an array of numbers"):
            INPUTS[name](X, NO_NUMBERS[kind])
    for name in ("k_train", "k_cross", "k_test", "y"):
        with pytest.raises(ValueError, match=f"{name} is .*; expected an array of numbers"):
            gp_posterior(**GP | {name: NO_NUMBERS[kind]})
    for arguments in ((NO_NUMBERS[kind], 1.0, 0.1), (1.0, [NO_NUMBERS[kind]], 0.1)):
        with pytest.raises(ValueError, match="(measured|expected) is .*; expected an array of numbers"):
            check("claim", *arguments, source="s")


@pytest.mark.parametrize("net", [None, "relu", {}, MLP, NET.phi, PARAMS])
def test_what_is_no_network(net):
    for ask in (lambda: nngp(net, X), lambda: ntk(net, X), lambda: sample_ntk(net, KEY, X, 2)):
        with pytest.raises(ValueError, match="net is .*; expected an MLP"):
            ask()


@pytest.mark.parametrize("name", ["sigma_w2", "sigma_b2"])
@pytest.mark.parametrize("shape", [(0,), (4,), (1, 1)])
def test_a_variance_is_one_number_and_not_one_for_each_point(name, shape):
    net = replace(NET, **{name: np.ones(shape)})
    asks = [partial(nngp, net, X), partial(ntk, net, X), partial(sample_ntk, net, KEY, X, 2), partial(net.apply, PARAMS, X)]
    for ask in (*asks, partial(net.init, KEY, 3), partial(empirical_ntk, net, PARAMS, X)):
        with pytest.raises(ValueError, match=rf"{name} has shape \({shape[0]},.*; expected one number, or vmap over the network"):
            ask()


def test_a_network_of_several_variances_is_for_vmap():
    nets = replace(NET, sigma_w2=jnp.array([1.0, 2.0]), sigma_b2=jnp.array([0.0, 0.1]))
    for kernel, w2, b2 in zip(jax.vmap(lambda net: ntk(net, X))(nets), (1.0, 2.0), (0.0, 0.1)):
        np.testing.assert_allclose(kernel, ntk(replace(NET, sigma_w2=w2, sigma_b2=b2), X), rtol=1e-12)


@pytest.mark.parametrize("key", [
    None, 0, 0.5, "key", X, np.ones(2), np.arange(2), np.arange(3, dtype=np.uint32), jax.random.split(KEY, 3),
    jax.random.PRNGKey(0)[None],
])  # fmt: skip
def test_what_is_not_one_key(key):
    for ask in (lambda: NET.init(key, 3), lambda: sample_ntk(NET, key, X, 2)):
        with pytest.raises(ValueError, match=r"key is .*; expected one key, as jax.random.key\(0\) gives"):
            ask()


def test_keys_of_both_kinds():
    for a, b in zip(*(jax.tree.leaves(NET.init(key, 3)) for key in (KEY, jax.random.PRNGKey(0)))):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("params", [
    None, [], "p", WEIGHTS, {"w": 1}, [{"a": WEIGHTS}] * 2, [(p["w"], p["b"]) for p in PARAMS], [{"w": p["w"]} for p in PARAMS],
    [p | {"b": None} for p in PARAMS], [p | {"b": "b"} for p in PARAMS], [p | {"b": jnp.ones(())} for p in PARAMS],
    [p | {"b": p["b"][None]} for p in PARAMS], [p | {"b": jnp.ones(7)} for p in PARAMS],
    [p | {"b": p["b"].tolist()} for p in PARAMS],
], ids=range(14))  # fmt: skip
def test_parameters_that_init_does_not_give(params):
    with pytest.raises(ValueError, match=r"params hold .*; expected shapes \[\{'w': \(3, 5\), 'b': \(5,\)\}"):
        NET.apply(params, X)
    for ask in (empirical_ntk, empirical_ntk_cost):
        with pytest.raises(ValueError, match=r"params.* (hold .*; expected shapes|has dtype .*; expected a floating type)"):
            ask(NET, params, X)


def test_layers_may_be_a_tuple():
    np.testing.assert_array_equal(NET.apply(tuple(PARAMS), X), NET.apply(PARAMS, X))


@pytest.mark.parametrize("f, says", [
    (None, "f is None; expected an MLP, or a function"),
    (lambda p: p, r"f fails for inputs of shape \(4, 3\): TypeError: .*; expected an array of shape \(4, outputs\)"),
    (lambda p, x: x @ p.T, r"f fails for inputs of shape \(4, 3\)"),
    (lambda p, x: np.asarray(x) @ p, r"f fails for inputs of shape \(4, 3\): TracerArrayConversionError"),
    (lambda p, x: x @ p if x[0, 0] > 0 else -x @ p, r"f fails for inputs of shape \(4, 3\): TracerBoolConversionError"),
    (lambda p, x: x.reshape(4, 3) @ p, r"f fails for inputs of shape \(1, 3\)"),
    (lambda p, x: jnp.ones((4, 2)), r"f maps inputs of shape \(1, 3\) to .*\(1, outputs\)"),
    (lambda p, x: (x @ p)[:, :0], r"f maps inputs of shape \(4, 3\) to .*\(4, outputs\)"),
    (lambda p, x: {"out": x @ p}, r"f maps inputs of shape \(4, 3\) to \{'out'"),
    (lambda p, x: 1j * x @ p, r"to .*complex128.*, floating"),
    (lambda p, x: (x @ p).astype(int), r"to .*int64.*, floating"),
], ids=range(11))  # fmt: skip
def test_functions_that_do_not_map_rows_to_outputs(f, says):
    for ask in (empirical_ntk, empirical_ntk_cost):
        with pytest.raises(ValueError, match=says):
            ask(f, WEIGHTS, X)


@pytest.mark.parametrize("arguments, says", [
    (dict(params="f4"), "params has dtype .*str.*; expected a floating type"),
    (dict(params=abs), "params has dtype .*function.*; expected a floating type"),
    (dict(output=["full"]), r"output is \['full'\]; expected one of"),
    (dict(method=np.array(["auto"])), "method is array.*; expected one of"),
    (dict(memory_budget="2 GB"), "memory_budget is '2 GB'; expected an integer"),
    (dict(memory_budget=np.ones(2)), "memory_budget is array.*; expected an integer"),
])  # fmt: skip
def test_other_arguments_of_empirical_ntk(arguments, says):
    for ask in (empirical_ntk, empirical_ntk_cost):
        with pytest.raises(ValueError, match=says):
            ask(**dict(f=lambda p, x: x @ p, params=WEIGHTS, x1=X) | arguments)


@pytest.mark.parametrize("arguments, says", [
    (dict(kernel=None), "kernel fails for 2 and 3 points: .*expected one array"),
    (dict(kernel=lambda a: a), "kernel fails for 2 and 3 points: TypeError"),
    (dict(kernel=lambda a, b: np.asarray(a) @ b.T), "kernel fails for 2 and 3 points: TracerArrayConversionError"),
    (dict(kernel=lambda a, b: jnp.ones((2, 3))), r"kernel maps 1 and 1 points to shape \(2, 3\); expected \(1, 1\)"),
    (dict(devices=1), "devices is 1; expected different devices"),
    (dict(devices="cpu"), "devices is 'cpu'; expected different devices"),
    (dict(devices=[None]), r"devices is \[None\]; expected different devices"),
    (dict(devices=jax.devices()[:1] * 2), "devices is .*; expected different devices"),
    (dict(path=3), "path is 3; expected the path of a file"),
    (dict(path=""), "path is ''; expected the path of a file"),
    (dict(path=["a"]), r"path is \['a'\]; expected the path of a file"),
])  # fmt: skip
def test_other_arguments_of_tiled(arguments, says):
    with pytest.raises(ValueError, match=says):
        tiled(**dict(kernel=lambda a, b: a @ b.T, x1=X) | arguments)


@pytest.mark.parametrize("change, says", [
    ({"k_train": np.eye(3) * 1j}, "k_train has dtype complex128; expected real numbers"),
    ({"y": np.ones((3, 1)) * 1j}, "y has dtype complex128"),
    ({"k_cross": np.ones((2, 3)) * 1j}, "k_cross has dtype complex128"),
    ({"k_test": np.eye(2) * 1j}, "k_test has dtype complex128"),
    ({"k_cross": np.ones((0, 3)), "k_test": np.ones((0, 0))}, r"k_cross is \(0, 3\)"),
    ({"noise": np.ones(3)}, r"noise has shape \(3,\); expected one number"),
    ({"noise": np.ones((1, 1))}, r"noise has shape \(1, 1\)"),
    ({"noise": None}, "noise is None; expected a variance"),
])  # fmt: skip
def test_matrices_and_noise_of_a_process(change, says):
    with pytest.raises(ValueError, match=says):
        gp_posterior(**GP | change)
    if set(change) <= {"k_train", "y", "noise"}:
        with pytest.raises(ValueError, match=says):
            gp_log_likelihood(**{name: (GP | change)[name] for name in ("k_train", "y", "noise")})


@pytest.mark.parametrize("arguments, says", [
    ((np.nan, 1.0, 0.5), "q1 is .*expected a variance"),
    ((1.0, -1.0, 0.5), "q2 is .*expected a variance"),
    ((1.0, np.inf, 0.5), "q2 is .*expected a variance"),
    ((1.0, 1.0, np.nan), "k holds 1 values that are NaN"),
    ((1.0, 1.0, 2.0), "k is larger than the root of q1 q2"),
    ((1.0, 1.0, 0.5j), "k has dtype complex128; expected real numbers"),
    ((None, 1.0, 0.5), "q1 is None; expected an array of numbers"),
    ((1.0, "1", 0.5), "q2 is '1'; expected an array of numbers"),
])  # fmt: skip
def test_arguments_of_dual_maps(arguments, says):
    for name in ("relu", "erf", "tanh"):
        for dual in (get_activation(name).dual, get_activation(name).dual_derivative):
            with pytest.raises(ValueError, match=says):
                dual(*arguments)


@pytest.mark.parametrize("ask, says", [
    (lambda: get_activation(np.array(["relu"])), "activation is array"),
    (lambda: MLP(2, 3, activation=["relu"]), r"activation is \['relu'\]"),
    (lambda: quadrature("q", None), "fn is None; expected an elementwise function"),
    (lambda: quadrature("q", jnp.tanh, 0), "nodes is 0; expected an integer of at least 1"),
    (lambda: quadrature("q", jnp.tanh, True), "nodes is True"),
    (lambda: quadrature("q", jnp.tanh, 8.5), "nodes is 8.5"),
    (lambda: register_activation("relu"), "activation is 'relu'; expected an Activation with a name"),
    (lambda: register_activation(quadrature("", jnp.tanh)), "expected an Activation with a name"),
    (lambda: register_activation(quadrature(["q"], jnp.tanh)), "expected an Activation with a name"),
    (lambda: register_activation(quadrature("q", np.tanh)), r"'q' maps shape \(2, 3\) to TypeError"),
    (lambda: register_activation(quadrature("q", math.tanh)), r"'q' maps shape \(2, 3\) to TypeError"),
    (lambda: register_activation(quadrature("q", jax.nn.softmax)), r"'q' maps shape \(\) to .*; expected an elementwise function"),
    (lambda: register_activation(quadrature("q", lambda z: z > 0)), r"'q' maps shape \(2, 3\) to .*bool"),
], ids=range(13))  # fmt: skip
def test_activations(ask, says):
    with pytest.raises(ValueError, match=says):
        ask()


@pytest.mark.parametrize("change, says", [
    (dict(claim=None), "claim is None"),
    (dict(source=3), "source is 3"),
    (dict(measured=1j), "measured has dtype complex128; expected real numbers"),
    (dict(measured="1.0"), "measured is '1.0'; expected an array of numbers"),
    (dict(expected=1j), "expected has dtype complex128"),
    (dict(tol="a"), "tol is 'a'"),
    (dict(tol=True), "tol is True; expected a positive, finite absolute tolerance"),
    (dict(tol=[0.1, 0.1]), r"tol is \[0.1, 0.1\]; expected a positive"),
    (dict(expected="< abc", tol=None), "expected is '< abc'; expected a finite bound"),
])  # fmt: skip
def test_claims(change, says, capsys):
    with pytest.raises(ValueError, match=says):
        check(**dict(claim="c", measured=1.0, expected=1.0, tol=0.1, source="s") | change)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("change, says", [
    ({"fig": None}, "fig is None; expected a matplotlib figure"),
    ({"name": None}, "name is None; expected fig-"),
    ({"name": b"fig-a"}, "name is b'fig-a'; expected fig-"),
    ({"caption": None}, "figure fig-a needs a caption"),
    ({"alt": 3}, "alternative text"),
])  # fmt: skip
def test_a_figure(change, says):
    with pytest.raises(ValueError, match=says):
        arguments = dict(fig=plt.figure(), name="fig-a", caption="c", alt="a") | change
        figures.show(arguments.pop("fig"), **arguments)
    plt.close("all")


@pytest.mark.parametrize("change, says", [
    ({"figs": None}, "figs is None; expected a list with an entry for each frame"),
    ({"figs": [None, None]}, "fig is None; expected a matplotlib figure"),
    ({"labels": 3}, "labels is 3; expected a list"),
    ({"labels": "ab"}, "labels is 'ab'; expected a list"),
    ({"alts": "ab"}, "alts is 'ab'; expected a list"),
    ({"alts": [None, "b"]}, "alternative text"),
    ({"label": None}, "label is None; expected what the slider steps through"),
    ({"label": " "}, "label is ' '"),
])  # fmt: skip
def test_a_slider(change, says):
    good = dict(figs=[plt.figure(), plt.figure()], labels=[1, 2], label="w", name="fig-a", caption="c", alts=["a", "b"])
    with pytest.raises(ValueError, match=says):
        figures.slider(**good | change)
    plt.close("all")
