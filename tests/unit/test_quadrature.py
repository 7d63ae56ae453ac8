"""Dual maps by quadrature against integrals in polar coordinates and of high precision, at all variances;
their limits and properties; and what they refuse."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from ntk_helpers import MLP, fixed_point, ntk, propagate
from ntk_helpers.learning import random_features
from ntk_helpers.networks import Activation, get_activation, quadrature, register_activation, registry
from ntk_helpers.theory import critical_sigma_w2, hermite_parts, random_features_risk

ABS = jnp.abs
ELU = jax.nn.elu
SILU = jax.nn.silu


def steep(z):
    return jax.nn.sigmoid(10 * z)


def bump(z):
    return jnp.exp(-(z**2) / 2)


PHI = {  # by quadrature; φ and φ' in NumPy
    "tanh": (jnp.tanh, np.tanh, lambda z: 1 / np.cosh(np.clip(z, -300, 300)) ** 2),
    "silu": (SILU, lambda z: z * expit(z), lambda z: expit(z) * (1 + z * expit(-z))),
    "elu": (
        ELU,
        lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
        lambda z: np.exp(np.minimum(z, 0)),
    ),
    "abs": (ABS, np.abs, np.sign),
    "steep": (steep, lambda z: expit(10 * z), lambda z: 10 * expit(10 * z) * expit(-10 * z)),
    "bump": (bump, lambda z: np.exp(-(z**2) / 2), lambda z: -z * np.exp(-(z**2) / 2)),
}
REFERENCE = [  # q, E φ², E φ'² of tanh
    (1e-8, 9.9999998000000059e-9, 0.9999999800000007),
    (1e-4, 9.9980005664600926e-5, 0.99980006996868339),
    (0.1, 0.084213928421107246, 0.849207068406472),
    (1.0, 0.39429449039784117, 0.46440290244826824),
    (5.0, 0.66844488502011097, 0.23062537562216772),
    (10.0, 0.75726627692131837, 0.16557242076970866),
    (30.0, 0.85626860511610122, 0.09659845066270764),
    (100.0, 0.92053686343051667, 0.053106787748115834),
    (1e3, 0.97477904179745074, 0.016818172175373161),
    (1e4, 0.99202148248051304, 0.0053191446440146221),
    (1e6, 0.99920211576731373, 0.00053192295477144597),
    (1e8, 0.99992021154424783, 5.3192303967760535e-5),
]
PAIRS = [(1e-8, 1e-8), (1e-8, 1e8), (0.03, 5.0), (1.0, 1.0), (30.0, 30.0), (1e3, 1e8), (1e8, 1e8)]
GAPS = [0.0, 1e-9, 1e-3, 0.5, 1.0, 1.9, 2.0]


def phi_of(name):
    return quadrature(name, PHI[name][0])


STEP = 0.2
LOGIT, LOG = np.arange(-45, 45, STEP), np.arange(-40, 9, STEP)
RADII = np.logaddexp(0, LOG)
IN_RADIUS = STEP * expit(LOG) * RADII * np.exp(-(RADII**2) / 2)
FROM_ONE, FROM_OTHER = expit(LOGIT), expit(-LOGIT)
IN_ANGLE = STEP * FROM_ONE * FROM_OTHER


def by_sectors(f, q1, q2, gap):
    """E f(u) f(v), sector by sector between the lines u = 0 and v = 0, with nodes in the logit of the angle
    and the logarithm of the radius: they see every scale, and know of no series."""
    tilt = 2 * np.arcsin(np.sqrt(gap / 2))
    total = 0.0
    for width, sign in ((tilt, -1), (np.pi - tilt, 1)):  # where u and v differ in sign, and where they do not
        u, v = (
            np.sqrt(q) * np.sin(width * at)[:, None] * RADII for q, at in ((q1, FROM_ONE), (q2, FROM_OTHER))
        )
        total += sum(width * IN_ANGLE @ (f(s * u) * f(s * sign * v)) @ IN_RADIUS for s in (1, -1))
    return total / (2 * np.pi)


@pytest.mark.slow
@pytest.mark.parametrize("name", PHI)
def test_dual_maps_equal_integrals_in_polar_coordinates(name):
    """To 1e-11, relative to the root of both variances' own; what E φ² loses of a φ that dies out costs a
    digit."""
    tolerance = 1e-10 if name == "bump" else 1e-11
    phi, (_, fn, slope) = phi_of(name), PHI[name]
    for q1, q2 in PAIRS:
        size, size_of_slopes = (
            np.sqrt([f(q, q) for q in (q1, q2)]).prod()
            for f in (phi.aligned, lambda a, b: phi.slope(a, b, jnp.array(0.0), jnp.array(2.0)))
        )
        for gap in GAPS:
            found = phi.aligned(q1, q2) - phi.drop(q1, q2, jnp.array(gap), jnp.array(2 - gap))
            assert abs(found - by_sectors(fn, q1, q2, gap)) < tolerance * size
            found = phi.slope(q1, q2, jnp.array(gap), jnp.array(2 - gap))
            assert abs(found - by_sectors(slope, q1, q2, gap)) < tolerance * size_of_slopes


@pytest.mark.parametrize("q, square, slope", REFERENCE)
def test_tanh_at_every_variance_to_the_last_digits(q, square, slope):
    """E φ² and E φ'² by mpmath, 30 digits: 2 quad(lambda z: npdf(z) tanh(√q z)², [0, 1/√q and 1, 12])."""
    phi = get_activation("tanh")
    assert phi.dual(q, q, q) == pytest.approx(square, rel=1e-12)
    assert phi.dual_derivative(q, q, q) == pytest.approx(slope, rel=1e-12)


@pytest.mark.parametrize("name", ["tanh", "silu", "abs"])
def test_price_theorem_at_every_variance(name):
    """d E[φφ] / dk = E[φ'φ'] (Price 1958), to rounding."""
    phi = phi_of(name)
    q1, q2, c = (
        a.ravel() for a in np.meshgrid([1e-8, 1e-3, 1.0, 1e4, 1e8], [1e-8, 1.0, 1e8], [-0.9, 0.0, 0.999])
    )
    k = jnp.asarray(c * np.sqrt(q1 * q2))
    by_k = jax.grad(lambda k: phi.dual(q1, q2, k).sum())(k)
    size = np.sqrt(phi.dual_derivative(q1, q1, q1) * phi.dual_derivative(q2, q2, q2))
    np.testing.assert_allclose(by_k / size, phi.dual_derivative(q1, q2, k) / size, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", sorted({*PHI} - {"abs"}))
@pytest.mark.parametrize("q", [1e-6, 1.0, 1e6])
def test_the_drop_closes_with_the_slope(name, q):
    """drop / gap -> q E φ'² at gaps far below 1/q, and at c = -1 as much is left as the parity of φ says."""
    phi, slope = phi_of(name), phi_of(name).slope(q, q, jnp.array(0.0), jnp.array(2.0))
    for gap in (1e-30, 1e-16):
        drop = phi.drop(q, q, jnp.array(gap), jnp.array(2.0))
        assert drop == pytest.approx(gap * q * float(slope), rel=1e-8 if name == "elu" else 1e-9)


def test_the_drop_of_a_kink_is_accurate_relative_to_itself():
    """|z|: (2/π) (1 - sin θ - (π/2 - θ) cos θ) q, whose second term is gap^(3/2)."""
    for gap in (1e-25, 1e-12, 1e-3):
        theta = 2 * np.arcsin(np.sqrt(gap / 2))
        exact = 1e4 * 2 / np.pi * (theta * np.cos(theta) - np.sin(theta) + np.pi / 2 * gap)
        drop = phi_of("abs").drop(1e4, 1e4, jnp.array(gap), jnp.array(2 - gap))
        assert drop == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("name", PHI)
def test_mismatch_is_of_second_order_where_variances_meet(name):
    phi = phi_of(name)
    for q in (1e-6, 1.0, 1e3, 1e7):
        far, near = (float(phi.mismatch(q, q * (1 + step))) for step in (1e-3, 1e-5))
        assert far == pytest.approx(1e4 * near, rel=2e-3, abs=1e-20 if name in ("abs",) or q == 1e-6 else 0)
        by_aligned = 1 - phi.aligned(q, 3 * q) / np.sqrt(phi.aligned(q, q) * phi.aligned(3 * q, 3 * q))
        assert phi.mismatch(q, 3 * q) == pytest.approx(
            float(by_aligned), abs=3e-11 if name == "bump" else 1e-12
        )


@given(a=st.floats(-8, 8), b=st.floats(-8, 8), gap=st.floats(0, 1))
def test_tanh_lies_between_the_line_and_the_sign(a, b, gap):
    """Every erf does, and tanh is a mixture of them (Stefanski 1991): ρ of equal variances is above
    (2/π) arcsin c and below c; E φ² grows with q, and E φφ is below what Cauchy and Schwarz allow."""
    phi, (q1, q2), c = get_activation("tanh"), (10**a, 10**b), 1 - gap
    square = float(phi.dual(q1, q1, q1))
    assert 2 / np.pi * np.arcsin(c) - 1e-12 <= phi.dual(q1, q1, c * q1) / square <= c + 1e-12
    other = float(phi.dual(q2, q2, q2))
    assert (other >= square) == (q2 >= q1) or abs(other / square - 1) < 1e-12
    assert phi.dual(q1, q2, c * np.sqrt(q1 * q2)) <= np.sqrt(square * other) * (1 + 1e-12)


@pytest.mark.parametrize("q", [1e-30, 1e-12, 1e-10, 7e9, 1e13, 1e20])
def test_beyond_the_table_are_the_limits(q):
    """Nearly linear ones at 0; softplus nearly relu at infinity."""
    softplus, relu = quadrature("softplus", jax.nn.softplus), get_activation("relu")
    if q < 1:
        at_zero = np.log(2) ** 2 + 0.25 * 0.3 * q
        assert softplus.dual(q, q, 0.3 * q) == pytest.approx(at_zero, rel=1e-10)
        assert get_activation("tanh").dual(q, q, 0.3 * q) == pytest.approx(0.3 * q, rel=1e-9)
    else:
        for dual in ("dual", "dual_derivative"):
            found, exact = (float(getattr(phi, dual)(q, q, 0.3 * q)) for phi in (softplus, relu))
            assert found == pytest.approx(exact, rel=3 / q**0.5)


@pytest.mark.parametrize("q", [1e-8, 1.0, 20.0, 1e8])
def test_polynomials_at_every_variance_and_waves_as_far_as_nodes_go(q):
    square, cubic = quadrature("square", lambda z: z**2), quadrature("cubic", lambda z: z**3 / 3 - z)
    assert square.dual(q, q, 0.4 * q) == pytest.approx(q**2 * (1 + 2 * 0.16), rel=1e-11)
    assert cubic.dual_derivative(q, q, 0.4 * q) == pytest.approx((q - 1) ** 2 + 2 * 0.16 * q**2, rel=1e-11)
    cos = quadrature("cos", jnp.cos)
    if q <= cos.reach():
        assert cos.dual(q, q, 0.4 * q) == pytest.approx(
            np.exp(-q) * np.cosh(0.4 * q), rel=1e-9 * np.exp(0.6 * q)
        )


# --- what they refuse


@pytest.mark.slow
@pytest.mark.parametrize(
    "fn, q, reach",
    [
        (jnp.cos, 1e4, "1.8e"),
        (lambda z: jnp.sin(5 * z), 30.0, "8"),
        (lambda z: jnp.clip(z, -1, 1), 1.0, "0.022"),
        (jax.nn.relu6, 1.0, "0"),
        (jax.nn.hard_silu, 10.0, "0.21"),
        (jnp.sign, 1.0, "0"),
        (jnp.log, 1.0, "0"),
        (jnp.tanh, 1e12, "6.9e"),
    ],
)
def test_variances_beyond_reach_are_refused_by_name(fn, q, reach):
    phi = quadrature("far", fn)
    says = f"dual maps of activation 'far' are good up to variances of {reach}"
    for dual in (phi.dual, phi.dual_derivative):
        with pytest.raises(ValueError, match=says):
            dual(q, 1e-9, 0.0)
        assert np.isnan(jax.jit(dual)(q, 1e-9, 0.0))
    net, x = MLP(2, 1, 1, phi, 1.0, 0.0), np.sqrt(q) * np.ones((2, 3))
    with pytest.raises(ValueError, match="beyond .*, up to which dual maps of activation 'far' are good"):
        ntk(net, x)
    with pytest.raises(ValueError, match=says):
        propagate(net, q)
    with pytest.raises(ValueError, match=says):
        fixed_point(net, q)
    with pytest.raises(ValueError, match=says):
        critical_sigma_w2(phi, q)


# --- compiled once, and for the function that was asked


def test_a_second_call_compiles_nothing():
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    jax.jit(lambda x: x + 1)(1.0)
    assert compiled
    for phi in (get_activation("tanh"), get_activation("erf"), quadrature("silu", SILU)):
        for dual in (phi.dual, phi.dual_derivative):
            dual(1.3, 0.7, 0.4)
            before = len(compiled)
            dual(1.1, 0.2, -0.1)
            assert len(compiled) == before


@pytest.mark.slow
def test_a_name_registered_again_has_the_new_activation(monkeypatch, x1):
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    net = None
    for factor in (1.0, 2.0, 2.0):
        fn = lambda z, factor=factor: factor * jnp.tanh(z)
        register_activation(quadrature("mine", fn))
        net = net or MLP(3, 4, 1, "mine", 1.0, 0.1)
        np.testing.assert_allclose(
            ntk(net, x1), ntk(MLP(3, 4, 1, quadrature("other", fn), 1.0, 0.1), x1), rtol=1e-14
        )
        expected = factor**2 * np.asarray(get_activation("tanh").dual(1.0, 1.0, 0.5))
        assert get_activation("mine").dual(1.0, 1.0, 0.5) == pytest.approx(float(expected), rel=1e-12)
    register_activation(get_activation("tanh"))
    with pytest.raises(ValueError, match="activation 'tanh' is the package's own; expected another name"):
        register_activation(quadrature("tanh", lambda z: jnp.tanh(z)))


def test_the_same_function_gives_the_same_activation():
    assert quadrature("silu", SILU) == quadrature("silu", SILU) != quadrature("swish", SILU)
    assert repr(quadrature("silu", SILU)) == "Activation('silu')"


def test_an_activation_goes_where_a_name_goes(x1):
    mine, net = quadrature("mine", jnp.tanh), MLP(3, 5, 1, "tanh", 1.5, 0.1)
    other = MLP(3, 5, 1, mine, 1.5, 0.1)
    assert isinstance(other.activation, Activation) and hash(other) == hash(MLP(3, 5, 1, mine, 1.5, 0.1))
    np.testing.assert_array_equal(ntk(other, x1), ntk(net, x1))
    params = net.init(jax.random.key(0), 3)
    np.testing.assert_array_equal(other.apply(params, x1), net.apply(params, x1))
    assert fixed_point(other) == fixed_point(net)
    assert critical_sigma_w2(mine, 0.05) == critical_sigma_w2("tanh", 0.05)
    assert hermite_parts(mine) == hermite_parts("tanh")
    features = [random_features(jax.random.key(1), 3, 7, phi)(x1) for phi in (mine, "tanh")]
    np.testing.assert_array_equal(*features)
    risks = [random_features_risk(300, 600, 100, 1.0, 0.5, activation=phi) for phi in (mine, "tanh")]
    assert risks[0] == risks[1]


def test_networks_and_activations_are_pickled():
    mine = quadrature("steep", steep)
    for each in (MLP(3, 5), MLP(3, 5, activation=mine), mine):
        assert pickle.loads(pickle.dumps(each)) == each
