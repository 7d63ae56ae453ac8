"""The coordinate check: by hand, known exponents, and the mistakes that it would not forgive."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import optax
import pytest

from ntk_helpers import MLP
from ntk_helpers.learning.training import scale_by_parameterization, train
from ntk_helpers.trust import CoordinateCheck, coordinate_check, coordinates

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
Y = np.sign(X[:, :1])
WIDTHS = (64, 192, 512)
NTK = MLP(3, 64)
MUP = replace(NTK, parameterization="mup", alpha=8.0)
RULES = {"sgd": optax.sgd(0.05), "adam": optax.adam(0.2, eps=1e-12)}


def optimizer(net, rule="sgd"):
    return optax.chain(RULES[rule], scale_by_parameterization(net, rule))


def checked(net, rule="sgd", y=Y, ask=optimizer):
    return coordinate_check(net, WIDTHS, X, y, partial(ask, rule=rule), 3, loss="mean", key=KEY, draws=4)


def test_movement_by_hand():
    """One step of descent on f - f₀ is one towards y + f₀."""
    net = MLP(2, 5, 1, "tanh", sigma_b2=0.1, alpha=2.0)
    ask = lambda net: optax.sgd(0.1)
    found = coordinate_check(net, (5, 9), X, Y[:, 0], ask, 2, loss="mean", key=KEY, draws=2)
    wide = replace(net, width=9)
    start = wide.init(jax.random.split(jax.random.fold_in(KEY, 9), 2)[1], 8, X.dtype)
    end = train(wide, start, X, wide.apply(start, X) + Y, optax.sgd(0.1), 2, loss="mean").params
    for layer in range(2):
        moved = wide.preactivations(end, X)[layer] - wide.preactivations(start, X)[layer]
        np.testing.assert_allclose(found.movement[1, layer, 1], np.sqrt((moved**2).mean()), rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["sgd", "adam"])
@pytest.mark.parametrize("kind, exponent", [("ntk", -0.5), ("mup", 0.0)])
def test_exponents(kind, exponent, rule):
    """Widths where the next order leaves 0.06."""
    found = checked({"ntk": NTK, "mup": MUP}[kind], rule)
    np.testing.assert_array_less(np.abs(found.slopes[:-1] - exponent), 0.06 + 4 * found.errors[:-1])
    assert abs(found.slopes[-1]) < 0.06 + 4 * found.errors[-1]
    assert (found.errors[:-1] < 0.04).all()  # enough to tell one from the other


@pytest.mark.slow
def test_without_its_centre_mup_would_show_slopes_that_are_not_there(monkeypatch):
    """Small targets: the residual is f₀, which falls as 1/√n; the check itself does not know of it."""
    small = 0.01 * Y
    np.testing.assert_allclose(checked(MUP, y=small).slopes[:-1], 0, atol=0.1)
    monkeypatch.setattr(coordinates, "_centred", lambda net, at_start: net.apply)
    np.testing.assert_allclose(checked(MUP, y=small).slopes[:-1], -0.5, atol=0.1 + 0.25)  # few draws of f₀


def test_rates_of_the_other_optimizer_show():
    """At the rates of SGD, Adam moves every layer more and more."""
    wrong = lambda net, rule: optax.chain(optax.adam(0.002), scale_by_parameterization(net, "sgd"))
    assert (checked(MUP, ask=wrong).slopes > 0.5).all()


def test_slopes_and_their_errors(rng):
    """Of laws with noise of 0.01: in one draw the slope varies by 0.01 over the spread of log n."""
    widths, exponents, draws = [10, 100, 1000], np.array([-0.5, 0.0, 1.0]), 400
    noise = rng.normal(size=(3, 3, draws))
    movement = np.array(widths, float)[:, None, None] ** exponents[:, None] * np.exp(0.01 * noise)
    slopes, errors = coordinates._slopes(widths, movement)
    one = 0.01 / (2**0.5 * np.log(10))
    np.testing.assert_allclose(errors, one / draws**0.5, rtol=4 / (2 * draws) ** 0.5)
    np.testing.assert_array_less(np.abs(slopes - exponents), 4.5 * one / draws**0.5)


def test_the_table():
    movement = np.array([[[0.125, 0.125], [1.0, 1.0]], [[0.0625, 0.0625], [1.0, 1.0]]])
    found = CoordinateCheck(np.array([64, 1024]), movement, np.array([-0.25, 0.0]), np.array([0.0, 0.01]))
    assert str(found).splitlines() == [
        " layer  n = 64  n = 1024           slope",
        "   z^1   0.125    0.0625  -0.250 ± 0.000",
        "output       1         1  +0.000 ± 0.010",
    ]


@pytest.mark.parametrize(
    "change, says",
    [
        ({"net": "relu"}, "net is 'relu'; expected an MLP"),
        ({"net": MLP(1, 4)}, "net has depth 1, .*; expected at least 2 of each"),
        ({"widths": (4,)}, r"widths are \[4\]"),
        ({"widths": (4, 4)}, r"widths are \[4, 4\]"),
        ({"widths": (4, 0)}, "width is 0; expected an integer"),
        ({"widths": 4}, "widths is 4; expected a sequence"),
        ({"draws": 1}, "draws is 1"),
        ({"draws": 2.0}, "draws is 2.0; expected an integer"),
        ({"x": X[0]}, "x1 has shape"),
        ({"y": Y[1:]}, "y has shape"),
        ({"steps": 0}, "steps is 0"),
        ({"key": 3}, "key is 3"),
        ({"loss": "squares"}, "loss is 'squares'"),
        ({"optimizer": RULES["sgd"]}, "optimizer is .*; expected a function of a network"),
        ({"optimizer": lambda net: 0.1}, "optimizer is 0.1; expected one of optax"),
        ({"optimizer": lambda net: optax.sgd(0.0)}, "a layer does not move at all"),
    ],
    ids=lambda each: each if isinstance(each, str) else next(iter(each)),
)
def test_wrong_arguments(change, says):
    given = dict(
        net=MLP(2, 4), widths=(3, 4), x=X, y=Y, optimizer=optimizer, steps=1, loss="mean", key=KEY, draws=2
    )
    with pytest.raises(ValueError, match=f"(?s){says}"):
        coordinate_check(**given | change)


@pytest.mark.filterwarnings("ignore:the run diverged")
def test_a_training_that_diverges_has_no_exponent():
    with pytest.raises(ValueError, match="training at width 3 diverged; expected a smaller learning rate"):
        coordinate_check(
            MLP(2, 4), (3, 4), X, Y, lambda net: optax.sgd(1e6), 9, loss="mean", key=KEY, draws=2
        )
