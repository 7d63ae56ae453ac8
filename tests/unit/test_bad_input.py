"""Every public function refuses what it cannot mean with a ValueError that names it, and not with an error
from deep inside."""

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest

from ntk_helpers import (
    MLP,
    book,
    critical_sigma_w2,
    empirical_ntk,
    empirical_ntk_cost,
    fixed_point,
    gp_log_likelihood,
    gp_posterior,
    kernel_dynamics,
    kernel_flow,
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
from ntk_helpers.book import check, figures
from ntk_helpers.finite import kernel_corrections
from ntk_helpers.learning import critical_learning_rate, steps_to_time
from ntk_helpers.learning.training import train
from ntk_helpers.networks import get_activation, quadrature, register_activation
from ntk_helpers.theory import trainable_depth

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(4, 3))
NET = MLP(2, 5)
PARAMS = NET.init(KEY, 3)
WEIGHTS = jnp.ones((3, 2))
NO_NUMBERS = {
    "None": None,
    "ragged": [[1.0, 2.0], [3.0]],
    "text": "abc",
    "texts": [["one", "two"]],
    "dict": {"a": 1},
    "function": abs,
    "objects": np.array([[None, 1.0]]),
    "dates": np.zeros((2, 3), "M8[s]"),
    "keys": jax.random.split(KEY, 4),
}
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
GP = {
    "k_train": np.eye(3),
    "k_cross": np.ones((2, 3)) / 9,
    "k_test": np.eye(2),
    "y": np.ones((3, 1)),
    "noise": 0.1,
}


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
    asks = [
        partial(nngp, net, X),
        partial(ntk, net, X),
        partial(sample_ntk, net, KEY, X, 2),
        partial(net.apply, PARAMS, X),
    ]
    for ask in (*asks, partial(net.init, KEY, 3), partial(empirical_ntk, net, PARAMS, X)):
        with pytest.raises(
            ValueError,
            match=rf"{name} has shape \({shape[0]},.*; expected one number, or vmap over the network",
        ):
            ask()


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_a_network_of_several_variances_is_for_vmap(name):
    net = replace(NET, activation=name)
    nets = replace(net, sigma_w2=jnp.array([1.0, 2.0]), sigma_b2=jnp.array([0.0, 0.1]))
    for kernel, w2, b2 in zip(jax.vmap(lambda net: ntk(net, X))(nets), (1.0, 2.0), (0.0, 0.1)):
        np.testing.assert_allclose(kernel, ntk(replace(net, sigma_w2=w2, sigma_b2=b2), X), rtol=1e-12)


@pytest.mark.parametrize(
    "key",
    [
        None,
        0,
        0.5,
        "key",
        X,
        np.ones(2),
        np.arange(2),
        np.arange(3, dtype=np.uint32),
        jax.random.split(KEY, 3),
        jax.random.PRNGKey(0)[None],
    ],
)
def test_what_is_not_one_key(key):
    for ask in (lambda: NET.init(key, 3), lambda: sample_ntk(NET, key, X, 2)):
        with pytest.raises(ValueError, match=r"key is .*; expected one key, as jax.random.key\(0\) gives"):
            ask()


def test_keys_of_both_kinds():
    for a, b in zip(*(jax.tree.leaves(NET.init(key, 3)) for key in (KEY, jax.random.PRNGKey(0)))):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "params",
    [
        None,
        [],
        "p",
        WEIGHTS,
        {"w": 1},
        [{"a": WEIGHTS}] * 2,
        [(p["w"], p["b"]) for p in PARAMS],
        [{"w": p["w"]} for p in PARAMS],
        [p | {"b": None} for p in PARAMS],
        [p | {"b": "b"} for p in PARAMS],
        [p | {"b": jnp.ones(())} for p in PARAMS],
        [p | {"b": p["b"][None]} for p in PARAMS],
        [p | {"b": jnp.ones(7)} for p in PARAMS],
        [p | {"b": p["b"].tolist()} for p in PARAMS],
    ],
    ids=range(14),
)
def test_parameters_that_init_does_not_give(params):
    with pytest.raises(ValueError, match=r"params hold .*; expected shapes \[\{'w': \(3, 5\), 'b': \(5,\)\}"):
        NET.apply(params, X)
    for ask in (empirical_ntk, empirical_ntk_cost):
        with pytest.raises(
            ValueError, match=r"params.* (hold .*; expected shapes|.*; expected (a floating|an array))"
        ):
            ask(NET, params, X)


def test_layers_may_be_a_tuple():
    np.testing.assert_array_equal(NET.apply(tuple(PARAMS), X), NET.apply(PARAMS, X))


@pytest.mark.parametrize(
    "f, says",
    [
        (None, "f is None; expected an MLP, or a function"),
        (
            lambda p: p,
            r"f fails for inputs of shape \(1, 3\): TypeError: .*; expected an array of shape \(1, outputs\)",
        ),
        (lambda p, x: x @ p.T, r"f fails for inputs of shape \(1, 3\)"),
        (lambda p, x: np.asarray(x) @ p, r"f fails for inputs of shape \(1, 3\): TracerArrayConversionError"),
        (
            lambda p, x: x @ p if x[0, 0] > 0 else -x @ p,
            r"f fails for inputs of shape \(1, 3\): TracerBoolConversionError",
        ),
        (lambda p, x: x.reshape(4, 3) @ p, r"f fails for inputs of shape \(1, 3\)"),
        (lambda p, x: jnp.ones((4, 2)), r"f maps inputs of shape \(1, 3\) to .*\(1, outputs\)"),
        (lambda p, x: (x @ p)[:, :0], r"f maps inputs of shape \(1, 3\) to .*\(1, outputs\)"),
        (lambda p, x: {"out": x @ p}, r"f maps inputs of shape \(1, 3\) to \{'out'"),
        (lambda p, x: 1j * x @ p, r"to .*complex128.*, floating"),
        (lambda p, x: (x @ p).astype(int), r"to .*int64.*, floating"),
    ],
    ids=range(11),
)
def test_functions_that_do_not_map_rows_to_outputs(f, says):
    for ask in (empirical_ntk, empirical_ntk_cost):
        with pytest.raises(ValueError, match=says):
            ask(f, WEIGHTS, X)


@pytest.mark.parametrize(
    "arguments, says",
    [
        (dict(params="f4"), "params is 'f4'; expected an array of numbers"),
        (dict(params=abs), "params is <built-in function abs>; expected an array of numbers"),
        (dict(output=["full"]), r"output is \['full'\]; expected one of"),
        (dict(method=np.array(["auto"])), "method is array.*; expected one of"),
        (dict(memory_budget="2 GB"), "memory_budget is '2 GB'; expected an integer"),
        (dict(memory_budget=np.ones(2)), "memory_budget is array.*; expected an integer"),
    ],
)
def test_other_arguments_of_empirical_ntk(arguments, says):
    for ask in (empirical_ntk, empirical_ntk_cost):
        with pytest.raises(ValueError, match=says):
            ask(**dict(f=lambda p, x: x @ p, params=WEIGHTS, x1=X) | arguments)


@pytest.mark.parametrize(
    "arguments, says",
    [
        (dict(kernel=None), "kernel fails for 2 and 3 points: .*expected one array"),
        (dict(kernel=lambda a: a), "kernel fails for 2 and 3 points: TypeError"),
        (
            dict(kernel=lambda a, b: np.asarray(a) @ b.T),
            "kernel fails for 2 and 3 points: TracerArrayConversionError",
        ),
        (
            dict(kernel=lambda a, b: jnp.ones((2, 3))),
            r"kernel maps 1 and 1 points to shape \(2, 3\); expected \(1, 1\)",
        ),
        (dict(devices=1), "devices is 1; expected different devices"),
        (dict(devices="cpu"), "devices is 'cpu'; expected different devices"),
        (dict(devices=[None]), r"devices is \[None\]; expected different devices"),
        (dict(devices=jax.devices()[:1] * 2), "devices is .*; expected different devices"),
        (dict(path=3), "path is 3; expected the path of a file"),
        (dict(path=""), "path is ''; expected the path of a file"),
        (dict(path=["a"]), r"path is \['a'\]; expected the path of a file"),
    ],
)
def test_other_arguments_of_tiled(arguments, says):
    with pytest.raises(ValueError, match=says):
        tiled(**dict(kernel=lambda a, b: a @ b.T, x1=X) | arguments)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"k_train": np.eye(3) * 1j}, "k_train has dtype complex128; expected real numbers"),
        ({"y": np.ones((3, 1)) * 1j}, "y has dtype complex128"),
        ({"k_cross": np.ones((2, 3)) * 1j}, "k_cross has dtype complex128"),
        ({"k_test": np.eye(2) * 1j}, "k_test has dtype complex128"),
        ({"k_cross": np.ones((0, 3)), "k_test": np.ones((0, 0))}, r"k_cross is \(0, 3\)"),
        ({"noise": np.ones(3)}, r"noise has shape \(3,\); expected one number"),
        ({"noise": np.ones((1, 1))}, r"noise has shape \(1, 1\)"),
        ({"noise": None}, "noise is None; expected a variance"),
    ],
)
def test_matrices_and_noise_of_a_process(change, says):
    with pytest.raises(ValueError, match=says):
        gp_posterior(**GP | change)
    if set(change) <= {"k_train", "y", "noise"}:
        with pytest.raises(ValueError, match=says):
            gp_log_likelihood(**{name: (GP | change)[name] for name in ("k_train", "y", "noise")})


@pytest.mark.parametrize(
    "arguments, says",
    [
        ((np.nan, 1.0, 0.5), "q1 is .*expected a variance"),
        ((1.0, -1.0, 0.5), "q2 is .*expected a variance"),
        ((1.0, np.inf, 0.5), "q2 is .*expected a variance"),
        ((1.0, 1.0, np.nan), "k holds 1 values that are NaN"),
        ((1.0, 1.0, 2.0), "k is larger than the root of q1 q2"),
        ((1.0, 1.0, 0.5j), "k has dtype complex128; expected real numbers"),
        ((None, 1.0, 0.5), "q1 is None; expected an array of numbers"),
        ((1.0, "1", 0.5), "q2 is '1'; expected an array of numbers"),
    ],
)
def test_arguments_of_dual_maps(arguments, says):
    for name in ("relu", "erf", "tanh"):
        for dual in (get_activation(name).dual, get_activation(name).dual_derivative):
            with pytest.raises(ValueError, match=says):
                dual(*arguments)


@pytest.mark.parametrize(
    "ask, says",
    [
        (lambda: get_activation(np.array(["relu"])), "activation is array"),
        (lambda: MLP(2, 3, activation=["relu"]), r"activation is \['relu'\]"),
        (lambda: quadrature("q", None), "fn is None; expected an elementwise function"),
        (lambda: register_activation("relu"), "activation is 'relu'; expected an Activation with a name"),
        (lambda: register_activation(quadrature("", jnp.tanh)), "expected an Activation with a name"),
        (lambda: register_activation(quadrature(["q"], jnp.tanh)), "expected an Activation with a name"),
        (lambda: register_activation(quadrature("q", np.tanh)), r"'q' maps shape \(2, 3\) to TypeError"),
        (lambda: register_activation(quadrature("q", math.tanh)), r"'q' maps shape \(2, 3\) to TypeError"),
        (
            lambda: register_activation(quadrature("q", jax.nn.softmax)),
            r"'q' maps shape \(\) to .*; expected an elementwise function",
        ),
        (lambda: register_activation(quadrature("q", lambda z: z > 0)), r"'q' maps shape \(2, 3\) to .*bool"),
    ],
    ids=range(10),
)
def test_activations(ask, says):
    with pytest.raises(ValueError, match=says):
        ask()


@pytest.mark.parametrize(
    "change, says",
    [
        (dict(claim=None), "claim is None"),
        (dict(source=3), "source is 3"),
        (dict(measured=1j), "measured has dtype complex128; expected real numbers"),
        (dict(measured="1.0"), "measured is '1.0'; expected an array of numbers"),
        (dict(expected=1j), "expected has dtype complex128"),
        (dict(tol="a"), "tol is 'a'"),
        (dict(tol=True), "tol is True; expected a positive, finite absolute tolerance"),
        (dict(tol=[0.1, 0.1]), r"tol is \[0.1, 0.1\]; expected a positive"),
        (dict(expected="< abc", tol=None), "expected is '< abc'; expected a finite bound"),
    ],
)
def test_claims(change, says, capsys):
    with pytest.raises(ValueError, match=says):
        check(**dict(claim="c", measured=1.0, expected=1.0, tol=0.1, source="s") | change)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "change, says",
    [
        ({"fig": None}, "fig is None; expected a matplotlib figure"),
        ({"name": None}, "name is None; expected fig-"),
        ({"name": b"fig-a"}, "name is b'fig-a'; expected fig-"),
        ({"caption": None}, "figure fig-a needs a caption"),
        ({"alt": 3}, "alternative text"),
    ],
)
def test_a_figure(change, says):
    with pytest.raises(ValueError, match=says):
        arguments = dict(fig=plt.figure(), name="fig-a", caption="c", alt="a") | change
        figures.show(arguments.pop("fig"), **arguments)
    plt.close("all")


@pytest.mark.parametrize(
    "change, says",
    [
        ({"figs": None}, "figs is None; expected a list with an entry for each frame"),
        ({"figs": [None, None]}, "fig is None; expected a matplotlib figure"),
        ({"labels": 3}, "labels is 3; expected a list"),
        ({"labels": "ab"}, "labels is 'ab'; expected a list"),
        ({"alts": "ab"}, "alts is 'ab'; expected a list"),
        ({"alts": [None, "b"]}, "alternative text"),
        ({"label": None}, "label is None; expected what the slider steps through"),
        ({"label": " "}, "label is ' '"),
    ],
)
def test_a_slider(change, says):
    good = dict(
        figs=[plt.figure(), plt.figure()],
        labels=[1, 2],
        label="w",
        name="fig-a",
        caption="c",
        alts=["a", "b"],
    )
    with pytest.raises(ValueError, match=says):
        figures.slider(**good | change)
    plt.close("all")


# --- training


def dynamics(theta=np.eye(3), y=np.ones((3, 2)), loss="mean", **rule):
    return kernel_dynamics(theta, y, loss=loss, **rule)


def squares(f):
    return (f**2).sum()


STEPS, BLOCKS = dict(learning_rate=0.1), np.eye(6).reshape(3, 2, 3, 2).swapaxes(1, 2)
FLOW = dict(theta=np.eye(3), loss=squares, t=[1.0], f0=np.ones((3, 2)))
AT_POINTS = dict(t=1.0, f0=np.ones((3, 2)), f0_test=np.ones((4, 2)), theta_test=np.ones((4, 3)))
OF_DRAWS = dict(
    t=1.0, theta_test=np.ones((4, 3)), nngp_train=np.eye(3), nngp_cross=np.ones((4, 3)), nngp_test=np.eye(4)
)
TRAIN = dict(f=NET, params=PARAMS, x=X, y=np.ones((4, 1)), optimizer=optax.sgd(0.1), steps=3, loss="mean")
MEMBERS = jax.tree.map(lambda p: jnp.stack([p, p]), PARAMS)


@pytest.mark.parametrize("kind", NO_NUMBERS)
def test_arrays_of_training_that_are_no_numbers(kind):
    bad, says = NO_NUMBERS[kind], "{} is .*; expected an array of numbers"
    asks = {
        "theta": [
            lambda: dynamics(bad),
            lambda: max_learning_rate(bad, "mean"),
            lambda: critical_learning_rate(bad, "mean"),
            lambda: kernel_flow(**FLOW | {"theta": bad}),
        ],
        "y": [lambda: dynamics(y=bad), lambda: train(**TRAIN | {"y": bad})],
        "x": [lambda: train(**TRAIN | {"x": bad})],
        "t": [
            lambda: dynamics().remaining(bad),
            lambda: dynamics().train(bad, np.ones((3, 2))),
            lambda: kernel_flow(**FLOW | {"t": bad}),
        ],
        "f0": [lambda: dynamics().train(1.0, bad), lambda: kernel_flow(**FLOW | {"f0": bad})],
        "steps": [lambda: steps_to_time(bad, 0.1)],
        **{
            name: [lambda name=name: dynamics().test(**AT_POINTS | {name: bad})]
            for name in ("f0_test", "theta_test")
        },
        **{
            name: [lambda name=name: dynamics().distribution(**OF_DRAWS | {name: bad})]
            for name in OF_DRAWS
            if name != "t"
        },
    }
    for name, doors in asks.items():
        for ask in doors:
            with pytest.raises(ValueError, match=says.format(name)):
                ask()


@pytest.mark.parametrize("value", ["0.1", [0.1], np.ones(1), 0.1j, 0, -0.1, np.nan, np.inf, -np.inf], ids=str)
def test_a_learning_rate_is_a_positive_number(value):
    for ask in (lambda: steps_to_time(3, value), lambda: dynamics(learning_rate=value)):
        with pytest.raises(ValueError, match="learning_rate is .*; expected a positive number"):
            ask()


@pytest.mark.parametrize(
    "value", [None, "0.1", [0.1], np.ones(1) / 2, 0.1j, -0.1, 1, 1.5, np.nan, np.inf], ids=str
)
def test_a_momentum_is_below_one(value):
    asks = [
        lambda: steps_to_time(3, 0.1, value),
        lambda: dynamics(momentum=value, **STEPS),
        lambda: max_learning_rate(np.eye(3), "mean", 1, value),
    ]
    for ask in asks:
        with pytest.raises(ValueError, match=r"momentum is .*; expected a number in \[0, 1\)"):
            ask()


@pytest.mark.parametrize("loss", [None, "mse", "MEAN", 3, ["mean"], squares])
def test_a_squared_loss_has_a_name(loss):
    asks = [
        lambda: loss_scale(loss, 3),
        lambda: dynamics(loss=loss),
        lambda: max_learning_rate(np.eye(3), loss),
        lambda: critical_learning_rate(np.eye(3), loss),
    ]
    for ask in asks if callable(loss) else [*asks, lambda: train(**TRAIN | {"loss": loss})]:
        with pytest.raises(ValueError, match="loss is .*; expected one of 'sum_half', 'mean_half', 'mean'"):
            ask()


@pytest.mark.parametrize("t", [-1.0, [1.0, -1e-9], np.nan, -np.inf, [], 1j], ids=str)
def test_times_are_at_least_zero(t):
    found = dynamics()
    for ask in (
        found.remaining,
        lambda t: found.train(t, np.ones((3, 2))),
        lambda t: found.distribution(**OF_DRAWS | {"t": t}),
    ):
        with pytest.raises(ValueError, match="t is .*; expected times, at least 0; inf is the limit"):
            ask(t)
    for bad in (t, 1.5, [1, 2.5]):
        with pytest.raises(ValueError, match="t is .*; expected whole numbers of steps, at least 0"):
            dynamics(**STEPS).remaining(bad)
    with pytest.raises(ValueError, match="t is .*expected"):
        kernel_flow(**FLOW | {"t": t})


@pytest.mark.parametrize(
    "ask, says",
    [
        (lambda: loss_scale("mean", 0), "n is 0; expected an integer of at least 1"),
        (lambda: loss_scale("mean", 2.0), "n is 2.0"),
        (lambda: loss_scale("mean", 2, -1), "outputs is -1"),
        (lambda: max_learning_rate(np.eye(3), "mean", 0), "outputs is 0"),
        (
            lambda: max_learning_rate(np.ones((2, 3)), "mean"),
            r"theta has shape \(2, 3\); expected \(n, n\) or \(n, n, o, o\)",
        ),
        (lambda: critical_learning_rate(np.eye(3)[0], "mean"), r"theta has shape \(3,\)"),
        (lambda: steps_to_time([1, -2], 0.1), r"steps is \[1, -2\]; expected numbers of steps, at least 0"),
        (lambda: steps_to_time(np.nan, 0.1), "steps is nan"),
        (
            lambda: dynamics(np.ones((2, 2))),
            r"theta has shape \(2, 2\) and y \(3, 2\); expected \(3, 3\) or \(3, 3, 2, 2\)",
        ),
        (lambda: dynamics(np.ones((3, 3, 3, 3))), r"theta has shape \(3, 3, 3, 3\)"),
        (lambda: dynamics(np.full((3, 3), np.nan)), "theta holds 9 values that are NaN or infinite"),
        (lambda: dynamics(np.eye(3) * 1j), "theta has dtype complex128; expected real numbers"),
        (lambda: dynamics(y=np.ones((3, 1, 1))), r"y has shape \(3, 1, 1\); expected \(any, any\)"),
        (lambda: dynamics(y=np.ones((0, 2))), r"y has shape \(0, 2\)"),
        (lambda: dynamics(y=np.full((3, 2), np.inf)), "y holds 6 values"),
        (
            lambda: dynamics(momentum=0.5),
            "momentum is 0.5 without a learning_rate; expected both, or neither",
        ),
        *[
            (lambda a=a: dynamics(ridge=a), "ridge is .*; expected a variance")
            for a in (-0.1, np.nan, np.inf, None, "1", 1j)
        ],
        (lambda: dynamics(ridge=np.ones(3)), r"ridge has shape \(3,\); expected one number"),
        (lambda: dynamics().train(1.0, np.ones(3)), r"f0 has shape \(3,\); expected \(3, 2\)"),
        (lambda: dynamics().train(1.0, np.full((3, 2), np.nan)), "f0 holds 6 values"),
        (
            lambda: dynamics().test(**AT_POINTS | {"f0_test": np.ones((4, 1))}),
            r"f0_test has shape \(4, 1\); expected \(any, 2\)",
        ),
        (
            lambda: dynamics().test(**AT_POINTS | {"theta_test": np.ones((3, 4))}),
            r"theta_test has shape \(3, 4\); expected \(4, 3\)",
        ),
        (
            lambda: dynamics().test(**AT_POINTS | {"theta_test": np.ones((4, 3, 2, 2))}),
            r"theta_test has shape \(4, 3, 2, 2\)",
        ),
        (lambda: dynamics(BLOCKS).test(**AT_POINTS), r"theta_test has shape .*; expected \(4, 3, 2, 2\)"),
        (lambda: dynamics(BLOCKS).distribution(**OF_DRAWS), "theta has blocks of 2 outputs"),
        (
            lambda: dynamics().distribution(**OF_DRAWS | {"nngp_train": np.eye(2)}),
            r"nngp_train has shape \(2, 2\)",
        ),
        (
            lambda: dynamics().distribution(**OF_DRAWS | {"nngp_cross": np.ones((3, 4))}),
            r"nngp_cross has shape \(3, 4\)",
        ),
        (
            lambda: dynamics().distribution(**OF_DRAWS | {"nngp_test": np.full((4, 4), np.nan)}),
            "nngp_test holds 16 values",
        ),
        (
            lambda: dynamics().distribution(**OF_DRAWS, covariance="all"),
            "covariance is 'all'; expected one of 'full', 'diagonal'",
        ),
        (
            lambda: kernel_flow(**FLOW | {"loss": "mean"}),
            "loss is 'mean'; expected a function of the outputs",
        ),
        (lambda: kernel_flow(**FLOW | {"loss": lambda f: f}), "loss does not return one number"),
        (lambda: kernel_flow(**FLOW | {"loss": lambda f: {}}), "loss does not return one number"),
        (lambda: kernel_flow(**FLOW | {"t": [1.0, np.inf]}), "t is .*; expected a row of finite times"),
        (lambda: kernel_flow(**FLOW | {"t": 1.0}), "t is 1.0; expected a row of finite times"),
        (lambda: kernel_flow(**FLOW | {"f0": np.ones((2, 2))}), r"theta has shape \(3, 3\) and f0 \(2, 2\)"),
        (lambda: kernel_flow(**FLOW, theta_test=np.ones((4, 3))), "one of theta_test and f0_test is missing"),
        (
            lambda: kernel_flow(**FLOW, theta_test=np.ones((3, 4)), f0_test=np.ones((4, 2))),
            r"theta_test has shape \(3, 4\)",
        ),
        *[
            (lambda a=a: kernel_flow(**FLOW, rtol=a), "rtol is .*; expected a relative tolerance")
            for a in (0, -1e-8, np.nan, 1.5, "a")
        ],
        (lambda: linearize(None, PARAMS), "f is None; expected an MLP, or a function"),
        (
            lambda: linearize(NET, PARAMS)(PARAMS[:1], X),
            "params hold .*; expected .*, as the parameters of the expansion",
        ),
        (
            lambda: linearize(NET, [p | {"b": "b"} for p in PARAMS]),
            r"params0\[0\]\['b'\] is 'b'; expected an array of numbers",
        ),
        (
            lambda: linearize(NET, [p | {"b": p["b"] * np.nan} for p in PARAMS]),
            r"params0\[0\]\['b'\] holds 5 values",
        ),
        *[
            (lambda a=a: taylor(NET, PARAMS, a), "order is .*; expected an integer of at least 1")
            for a in (0, -1, 1.0, None, True)
        ],
    ],
    ids=range(56),
)
def test_arguments_of_linear_models_and_their_dynamics(ask, says):
    with pytest.raises(ValueError, match=says):
        ask()


@pytest.mark.parametrize(
    "change, says",
    [
        ({"f": None}, "f is None; expected an MLP, or a function"),
        ({"f": lambda p: p}, "f fails: TypeError"),
        ({"f": lambda p, x: {"out": x}}, r"y has shape \(4, 1\), and the outputs \(\); expected the same"),
        ({"f": lambda p, x: x @ x.T}, r"y has shape \(4, 1\), and the outputs \(4, 4\)"),
        ({"params": None}, "params have first axes .*; expected arrays"),
        ({"params": "w"}, "params is 'w'; expected an array of numbers"),
        ({"params": {"w": abs}}, r"params\['w'\] is .*; expected an array of numbers"),
        ({"params": {"w": np.arange(3)}}, r"params\['w'\] has dtype int64; expected a floating type"),
        ({"params": [p | {"b": p["b"] * np.nan} for p in PARAMS]}, r"params\[0\]\['b'\] holds 5 values"),
        ({"params": PARAMS[:1]}, "params hold .*; expected shapes"),
        (
            {"params": PARAMS, "ensemble": True},
            "params have first axes .*; expected .* of one number of members",
        ),
        ({"params": {"w": np.ones(())}, "ensemble": True}, "params have first axes"),
        (
            {"params": jax.tree.map(lambda p: p[:0], MEMBERS), "ensemble": True},
            r"params have first axes \[\(0,\)\]",
        ),
        ({"x": np.ones(())}, r"x has shape \(\); expected \(points, ...\)"),
        ({"x": X[:0]}, r"x has shape \(0, 3\)"),
        ({"x": X * np.nan}, "x holds 12 values"),
        ({"x": X[:3]}, r"y has shape \(4, 1\), and the outputs \(3, 1\); expected the same"),
        ({"y": 1.0}, r"y has shape \(\)"),
        ({"y": np.ones((4, 2))}, r"y has shape \(4, 2\), and the outputs \(4, 1\)"),
        ({"y": np.full((4, 1), np.inf)}, "y holds 4 values"),
        ({"y": np.ones((4, 1)) * 1j}, "loss gives .*complex128.*; expected one real number"),
        ({"y": np.ones(3), "loss": lambda f, y: 0.0}, r"y has shape \(3,\)"),
        ({"optimizer": None}, "optimizer is None; expected one of optax"),
        ({"optimizer": 0.1}, "optimizer is 0.1"),
        *[
            ({"steps": steps}, "steps is .*; expected an integer of at least 1")
            for steps in (0, -3, 2.5, None, "3", np.nan)
        ],
        ({"loss": lambda f, y: f - y}, r"loss gives .*\(4, 1\).*; expected one real number"),
        ({"loss": lambda f, y: (f > y).sum()}, "loss gives .*int64.*; expected one real number"),
        ({"loss": lambda f: 0.0}, "loss fails: TypeError"),
        *[
            ({"at": at}, "at is .*; expected whole numbers from 0 to 3")
            for at in (3, [], [-1], [4], [0.5], "ab", [None], [[1, 2]], [[1], [1, 2]])
        ],
        ({"observe": abs}, "observe is .*; expected functions of the parameters by name"),
        ({"observe": {"a": 3}}, r"observe\['a'\] is 3; expected a function"),
        ({"observe": {"a": lambda: 3}}, r"observe\['a'\] fails: TypeError"),
        ({"batch_size": 0, "key": KEY}, "batch_size is 0; expected an integer of at least 1"),
        ({"batch_size": 1.5, "key": KEY}, "batch_size is 1.5"),
        ({"batch_size": 5, "key": KEY}, "batch_size is 5, and there are 4 points; expected no more"),
        ({"batch_size": 2}, "key is None; expected one key"),
        ({"batch_size": 2, "key": 3}, "key is 3; expected one key"),
        ({"key": KEY}, "key is given without batch_size; expected both, or neither"),
        ({"stop": 3}, "stop is 3; expected a function"),
        ({"stop": lambda losses: False}, "stop fails: TypeError"),
        ({"stop": lambda i, losses: losses < 1}, "stop does not return one truth value"),
        ({"checkpoint": 3}, "checkpoint is 3; expected the path of a file"),
        (
            {"checkpoint": "no/such/folder/run"},
            "checkpoint is 'no/such/folder/run'; expected a file in a folder that exists",
        ),
        ({"checkpoint": "."}, "checkpoint is '.'; expected a file"),
    ],
    ids=range(57),
)
def test_arguments_of_train(change, says):
    with pytest.raises(ValueError, match=says):
        train(**TRAIN | change)


# --- infinite depth, and moments of finite width

NO_NUMBER = [None, "1", [1.0], np.ones(1), np.ones((2, 2)), 1j, True, {"a": 1}]
DEPTHS = {
    "fixed_point": fixed_point,
    "phase": phase,
    "propagate": propagate,
    "trainable_depth": lambda net, q0=1.0, **more: trainable_depth(net, 12, 100, q0=q0, **more),
}


@pytest.mark.parametrize("door", DEPTHS)
def test_arguments_of_infinite_depth(door):
    ask = DEPTHS[door]
    for net in (None, "relu", MLP, NET.phi, 2.0):
        with pytest.raises(ValueError, match="net is .*; expected an MLP"):
            ask(net)
    for name in ("sigma_w2", "sigma_b2"):
        with pytest.raises(ValueError, match=rf"{name} has shape \(2,\); expected one number"):
            ask(replace(NET, **{name: np.ones(2)}))
    for q0 in (*NO_NUMBER, 0, -1.0, np.nan, np.inf, -np.inf):
        with pytest.raises(
            ValueError,
            match="(?s)q0 is .*; expected the squared norm of an input over its dimension, a positive number",
        ):
            ask(NET, q0)
    for c0 in (*NO_NUMBER, np.nan, 1.01, -1.01, np.inf) if door in ("propagate", "trainable_depth") else ():
        with pytest.raises(
            ValueError, match="(?s)c0 is .*; expected (a correlation, from -1 to 1|at least -0.09091)"
        ):
            ask(NET, c0=c0)


@pytest.mark.parametrize(
    "ask, says",
    [
        *[
            (lambda a=a: critical_sigma_w2(a, 0.1), "activation is .*; expected one of 'relu', ")
            for a in ("nothing", None, ["relu"], NET)
        ],
        *[
            (lambda b=b: critical_sigma_w2("tanh", b), "(?s)sigma_b2 is .*; expected one number")
            for b in NO_NUMBER
        ],
        *[
            (
                lambda b=b: critical_sigma_w2("relu", b),
                "sigma_b2 is .*; expected a variance, finite and at least 0",
            )
            for b in (np.nan, -0.1, np.inf)
        ],
        (
            lambda: critical_sigma_w2("tanh", 1e12),
            "dual maps of activation 'tanh' are good up to variances of 6.9e",
        ),
        (
            lambda: propagate(replace(NET, parameterization="standard")),
            "d_in is missing; expected the size of an input",
        ),
        *[
            (
                lambda d=d: propagate(replace(NET, parameterization="standard"), d_in=d),
                "d_in is .*; expected an integer of at least 1",
            )
            for d in (0, -3, 2.5, "3", True, np.ones(2))
        ],
        *[
            (
                lambda m=m: propagate(NET).condition_number(m),
                "points is .*; expected an integer of at least 1",
            )
            for m in (0, -1, 2.5, None, "a")
        ],
        *[
            (lambda m=m: trainable_depth(NET, m, 10), "points is .*; expected an integer of at least 1")
            for m in (0, -1, 2.5, None, "a")
        ],
        (lambda: propagate(NET).condition_number(1), "points is 1; expected at least 2"),
        (lambda: trainable_depth(NET, 1, 10), "points is 1; expected at least 2"),
        *[
            (lambda n=n: trainable_depth(NET, 12, n), "steps is .*; expected an integer of at least 1")
            for n in (0, -1, 2.5, None, "a", np.inf)
        ],
        (
            lambda: trainable_depth(NET, 3, 10, c0=-0.6),
            "c0 is -0.6; expected at least -0.5, as 3 points cannot all have less",
        ),
    ],
)
def test_other_arguments_of_infinite_depth(ask, says):
    with pytest.raises(ValueError, match=says):
        ask()


@pytest.mark.parametrize(
    "net, x, says",
    [
        (None, X, "net is None; expected an MLP"),
        (
            MLP(2, 5, activation="tanh"),
            X,
            "activation is 'tanh'; expected a homogeneous one, relu, leaky_relu or linear",
        ),
        (MLP(2, 5, sigma_b2=0.1), X, "net has sigma_b2 0.1 and d_out 1; expected 0 and 1"),
        (MLP(2, 5, 2), X, "net has sigma_b2 0.0 and d_out 2; expected 0 and 1"),
        (MLP(2, 5, sigma_w2=np.ones(2)), X, r"sigma_w2 has shape \(2,\); expected one number"),
        (NET, X[0], r"x1 has shape \(3,\); expected \(points, features\)"),
        (NET, X[None], r"x1 has shape \(1, 4, 3\)"),
        (NET, X[:0], r"x1 has shape \(0, 3\)"),
        (NET, X.astype(int), "x1 has dtype int64; expected a floating type"),
        (NET, X * np.nan, "x1 holds 12 values that are NaN or infinite"),
        (
            NET,
            X * [[1], [1], [0], [1]],
            "x holds an input of norm 0; expected inputs at which the network has a gradient",
        ),
        (
            MLP(3000, 5, sigma_w2=4.0),
            X,
            "the moments leave the range of floats at depth 3000 with sigma_w2 4.0; expected less depth, or",
        ),
        (MLP(3000, 5, sigma_w2=0.5), X, "the moments leave the range of floats at depth 3000"),
        (NET, 1e100 * X, "the moments leave the range of floats at depth 2"),
        (NET, 1e200 * X, "the moments leave the range of floats at depth 2"),
        (NET, 1e-200 * X, "the moments leave the range of floats at depth 2"),
        *[
            (NET, bad, r"x1 is .*; expected an array of numbers|x1 has shape \(0,\)")
            for bad in NO_NUMBERS.values()
        ],
    ],
    ids=range(16 + len(NO_NUMBERS)),
)
def test_arguments_of_moments(net, x, says):
    with pytest.raises(ValueError, match=says):
        ntk_moments(net, x)


@pytest.mark.parametrize(
    "net, x, says",
    [
        (None, X, "net is None; expected an MLP"),
        (replace(NET, sigma_w2=np.ones(2)), X, r"sigma_w2 has shape \(2,\); expected one number"),
        (NET, X[0], r"x1 has shape \(3,\); expected \(points, features\)"),
        (NET, X[:0], r"x1 has shape \(0, 3\)"),
        (NET, X.astype(int), "x1 has dtype int64; expected a floating type"),
        (NET, X * np.nan, "x1 holds 12 values that are NaN or infinite"),
        (NET, 1e100 * X[:1], "the corrections leave the range of floats at depth 2 with sigma_w2 2.0"),
        (replace(NET, activation="tanh"), 1e6 * X[:1], "are beyond 6.9e.10, up to which dual maps of"),
        *[
            (NET, bad, r"x1 is .*; expected an array of numbers|x1 has shape \(0,\)")
            for bad in NO_NUMBERS.values()
        ],
    ],
    ids=range(8 + len(NO_NUMBERS)),
)
def test_arguments_of_corrections(net, x, says):
    with pytest.raises(ValueError, match=says):
        kernel_corrections(net, x)


def test_stored_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (None, 3, "", "no run", "../06_kernels", b"06_kernels"):
        with pytest.raises(ValueError, match="name is .*; expected a stored run, .*.json in one of stored, "):
            book.stored(name)
