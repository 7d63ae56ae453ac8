"""neural-tangents through the compatibility layer: import, values, and what it says when it cannot help."""

import functools
import importlib
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from ntk_helpers.neural_tangents_compat import PATCHES, _load, _mend, nt, stax

ROOT = Path(__file__).parents[2]
IN_A_FRESH_PROCESS = """
import json, sys
try:
    import neural_tangents
    unaided = "works"
except ImportError as error:
    unaided = "fails"
from ntk_helpers.neural_tangents_compat import nt, stax
import neural_tangents
from neural_tangents import stax as plain_stax
import neural_tangents.experimental
try:
    neural_tangents.experimental.empirical_ntk_fn_tf
except ImportError as error:
    experimental = str(error)
roots = {name.partition(".")[0] for name in sys.modules}
print(json.dumps({"unaided": unaided, "same": neural_tangents is nt and plain_stax is stax,
                  "tensorflow": sorted(roots & {"tensorflow", "tf2jax"}), "experimental": experimental}))
"""


def inputs(n, *shape, seed=0):
    return jax.random.normal(jax.random.key(seed), (n, *shape))


def assert_close(measured, expected, rtol=1e-12):
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(measured, expected, rtol=rtol, atol=rtol * scale)


@pytest.fixture(scope="module")
def fresh_process():
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", IN_A_FRESH_PROCESS], capture_output=True, text=True
    )


def test_import_is_silent_and_needs_no_tensorflow(fresh_process):
    assert (fresh_process.returncode, fresh_process.stderr) == (0, "")
    assert fresh_process.stdout.count("\n") == 1
    assert json.loads(fresh_process.stdout)["tensorflow"] == []


def test_plain_import_fails_before_and_works_afterwards(fresh_process):
    facts = json.loads(fresh_process.stdout)
    assert (facts["unaided"], facts["same"]) == ("fails", True)
    assert "TensorFlow" in facts["experimental"]


def test_patches_name_what_they_changed():
    for patch, why in PATCHES.items():
        module, _, name = patch.rpartition(".")
        assert patch in sys.modules or hasattr(importlib.import_module(module), name), patch
        assert len(why) > 10, patch


# Infinite width


def jitted(kernel_fn):
    return jax.jit(lambda x: kernel_fn(x, None, ("nngp", "ntk")))


def test_dense_relu_kernels_are_the_arc_cosine_formulas():
    x = inputs(5, 7)
    _, _, kernel_fn = stax.serial(stax.Dense(1, 2.0**0.5), stax.Relu(), stax.Dense(1, 1.0))
    kernel = jitted(kernel_fn)(x)
    sigma = 2 * np.asarray(x @ x.T) / 7
    norms = np.sqrt(np.diag(sigma))
    angle = np.arccos(np.clip(sigma / np.outer(norms, norms), -1, 1))
    expected = np.outer(norms, norms) * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
    assert_close(kernel.nngp, expected, rtol=1e-7)
    assert_close(kernel.ntk, expected + sigma * (np.pi - angle) / (2 * np.pi), rtol=1e-7)


def test_convolution_of_one_pixel_is_a_dense_layer():
    x = inputs(4, 1, 1, 3)
    conv = stax.serial(stax.Conv(1, (1, 1), b_std=0.3), stax.Erf(), stax.Flatten(), stax.Dense(1))[2]
    dense = stax.serial(stax.Dense(1, b_std=0.3), stax.Erf(), stax.Dense(1))[2]
    for measured, expected in zip(jitted(conv)(x), jitted(dense)(x.reshape(4, 3))):
        assert_close(measured, expected)


@pytest.mark.filterwarnings("ignore:Linear scaling attention used")
def test_attention_and_layer_norm():
    attention = stax.GlobalSelfAttention(8, 4, 4, 2, linear_scaling=True)
    _, _, kernel_fn = stax.serial(stax.Dense(1), attention, stax.LayerNorm(), stax.Flatten())
    kernel = np.asarray(jitted(kernel_fn)(inputs(3, 4, 5)).nngp)
    assert_close(np.diag(kernel), np.ones(3), rtol=1e-10)
    assert np.linalg.eigvalsh(kernel)[0] > 0
    assert np.max(np.abs(kernel - np.diag(np.diag(kernel)))) < 1


def test_gradient_descent_mse_is_the_closed_form():
    k, k_test, y, f0, f0_test = (
        inputs(*shape, seed=i) for i, shape in enumerate([(6, 8), (2, 8), (6, 1), (6, 1), (2, 1)])
    )
    k, k_test, t = k @ k.T, k_test @ k.T, 3.0
    train, test = nt.predict.gradient_descent_mse(k, y)(t, f0, f0_test, k_test)
    decay = scipy.linalg.expm(-np.asarray(k) * t / y.size)
    assert_close(train, y + decay @ (f0 - y), rtol=1e-9)
    assert_close(test, f0_test + k_test @ np.linalg.solve(k, (np.eye(6) - decay) @ (y - f0)), rtol=1e-9)


def test_predict_may_be_vmapped_jitted_and_used_again():
    k, y = inputs(3, 4, 6), inputs(4, 1, seed=1)
    k = k @ jnp.swapaxes(k, 1, 2)
    one = lambda k, t: nt.predict.gradient_descent_mse(k, y)(t, jnp.zeros_like(y))
    assert_close(jax.jit(jax.vmap(one, (0, None)))(k, 2.0)[1], one(k[1], 2.0), rtol=1e-9)
    predict = nt.predict.gradient_descent_mse(k[0], y)
    assert_close(jax.jit(predict)(1.0, jnp.zeros_like(y)), one(k[0], 1.0), rtol=1e-9)
    assert_close(predict(2.0, jnp.zeros_like(y)), one(k[0], 2.0), rtol=1e-9)


def test_max_learning_rate_is_two_over_the_largest_eigenvalue():
    k = inputs(5, 8)
    k = k @ k.T
    assert_close(nt.predict.max_learning_rate(k), 2 * 5 / np.linalg.eigvalsh(k)[-1], rtol=1e-9)


# Finite width

CNN = stax.serial(stax.Conv(2, (2, 2)), stax.Gelu(), stax.Flatten(), stax.LayerNorm(), stax.Dense(2))
MLP = stax.serial(stax.Dense(4, b_std=0.1), stax.Relu(), stax.Dense(3))


def in_float64(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, "float64"), tree)


def from_the_jacobian(f, params, x1, x2):
    """J(x1) J(x2)^T, shape (n1, n2, o, o)."""
    flat = lambda x: [j.reshape(*j.shape[:2], -1) for j in jax.tree.leaves(jax.jacobian(f)(params, x))]
    return sum(jnp.einsum("aip,bjp->abij", j1, j2) for j1, j2 in zip(flat(x1), flat(x2)))


@pytest.mark.parametrize(
    ("net", "shape", "vmap_axes", "methods"),
    [(MLP, (5,), None, (0, 1, 2, 3)), (MLP, (5,), 0, (1, 2, 3)), (CNN, (3, 3, 1), 0, (1, 2, 3))],
    ids=["mlp", "mlp-vmap", "cnn-vmap"],
)
def test_every_empirical_ntk_is_the_jacobians_product(net, shape, vmap_axes, methods):
    init, f, _ = net
    x1, x2 = inputs(3, *shape), inputs(2, *shape, seed=1)
    params = in_float64(jax.jit(init, static_argnums=1)(jax.random.key(2), x1.shape)[1])
    expected = jax.jit(functools.partial(from_the_jacobian, f))(params, x1, x2)
    for method in methods:
        ntk_fn = nt.empirical_ntk_fn(f, trace_axes=(), vmap_axes=vmap_axes, implementation=method)
        assert_close(jax.jit(ntk_fn)(x1, x2, params), expected)


def test_default_empirical_ntk_is_the_mean_over_outputs():
    f = lambda p, x: jnp.tanh(x @ p)
    p, x = inputs(4, 3), inputs(2, 4, seed=1)
    expected = jnp.einsum("abii->ab", from_the_jacobian(f, p, x, x)) / 3
    assert_close(nt.empirical_ntk_fn(f)(x, None, p), expected)


def rearranging(p, x):
    rows = jnp.unstack(p)
    left, right = jnp.split(jnp.tile(jnp.stack(rows[::-1], 1), (2, 1)), [1], 1)
    return jax.checkpoint(lambda a: jnp.tanh(a @ x))(jnp.concatenate([right, left], 1)).T


@pytest.mark.filterwarnings("ignore:No Jacobian rule found")
def test_structured_derivatives_know_jaxs_newer_primitives():
    p, x = inputs(3, 2), inputs(3, 4, seed=1)
    structured = jax.jit(nt.empirical_ntk_fn(rearranging, (), implementation=3))(x, None, p)
    assert_close(structured, from_the_jacobian(rearranging, p, x, x))


def test_structured_derivatives_step_aside_where_they_cannot():
    def trained_image(p, x):
        return jax.lax.conv(p, x[:, None, None], (1,), "VALID")[0]

    p, x = inputs(1, 1, 4), inputs(3, seed=1)
    ntk_fn = jax.jit(nt.empirical_ntk_fn(trained_image, (), implementation=3))
    with pytest.warns(UserWarning, match="JACOBIAN_CONTRACTION answers"):
        answer = ntk_fn(x, None, p)
    assert_close(answer, from_the_jacobian(trained_image, p, x, x))


def test_auto_is_silent(capfd):
    f = lambda p, x: x @ p
    p, x = inputs(4, 3), inputs(2, 4, seed=1)
    assert_close(nt.empirical_ntk_fn(f, implementation=0)(x, None, p), x @ x.T)
    assert capfd.readouterr() == ("", "")


def test_linearize_and_taylor_expand():
    f = lambda p, x: jnp.sum(p**3) * x
    p0, p, x = jnp.array([1.0, -2.0]), jnp.array([0.7, 0.4]), jnp.array(3.0)
    first = jnp.sum(p0**3) + jnp.sum(3 * p0**2 * (p - p0))
    assert_close(nt.linearize(f, p0)(p, x), first * x)
    assert_close(nt.taylor_expand(f, p0, 2)(p, x), (first + jnp.sum(3 * p0 * (p - p0) ** 2)) * x)
    assert_close(nt.taylor_expand(f, p0, 3)(p, x), f(p, x))


def test_batch_changes_nothing():
    _, _, kernel_fn = MLP
    x1, x2 = inputs(4, 5), inputs(2, 5, seed=1)
    whole = jax.jit(lambda x1, x2: kernel_fn(x1, x2, "ntk"))
    batched = nt.batch(lambda x1, x2: whole(x1, x2), batch_size=2, device_count=0)
    assert_close(batched(x1, x2), whole(x1, x2))


def test_monte_carlo_kernel_finds_the_infinite_kernel():
    """Dense linear network: the width-1 NNGP sample is a product of Gaussians with mean x1.x2/d."""
    init, f, kernel_fn = stax.serial(stax.Dense(256), stax.Dense(256))
    x = inputs(3, 4)
    sampled = nt.monte_carlo_kernel_fn(init, f, jax.random.key(3), n_samples=64)(x, None, "nngp")
    exact = np.asarray(jitted(kernel_fn)(x).nngp)
    # Two layers of n = 256 independent units: relative variance at most (2/n + 2/n + 4/n^2) per sample.
    standard_error = np.sqrt((4 / 256 + 4 / 256**2) / 64) * np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    assert np.all(np.abs(sampled - exact) < 5 * standard_error)


# What it says when it cannot help


def test_missing_neural_tangents_names_the_command(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(ImportError, match=r"pip install --no-deps neural-tangents==0\.6\.5"):
        _load.load()


def test_another_neural_tangents_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.7.0")
    with pytest.raises(ImportError, match=r"0\.7\.0 is installed.*fit 0\.6\.5"):
        _load.load()


def test_missing_dependency_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "frozendict" else object())
    with pytest.raises(ImportError, match="pip install frozendict$"):
        _load.load()


def test_tested_are_both_ends_of_what_the_project_takes():
    """The floor of pyproject.toml, and the newest JAX in the lock."""
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"jax>={_load.OLDEST_JAX}" in asked
    locked = re.findall(r"^jax==([\d.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert max(locked, key=_load._numbers) == _load.NEWEST_JAX


def test_old_jax_is_refused(monkeypatch):
    monkeypatch.setattr(jax, "__version__", "0.4.30")
    with pytest.raises(ImportError, match=r"JAX 0\.7 to .* not on JAX 0\.4\.30"):
        _load.load()


def test_newer_jax_gives_one_warning(monkeypatch):
    monkeypatch.setattr(jax, "__version__", "99.1.0.dev20300101")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert _load.load() is nt
    assert [f"JAX {jax.__version__}" in str(warning.message) for warning in caught] == [True]


def test_newer_jax_that_cannot_work_gives_one_error(monkeypatch):
    monkeypatch.setattr(jax, "__version__", "99.1.0")
    monkeypatch.setattr(_mend.empirical, "_eqn_vjp_fn", None)
    monkeypatch.setattr(
        _mend, "_MENDS", [(_mend.empirical, "gone_in_this_version", None, "a name that is not there")]
    )
    with pytest.raises(ImportError, match=r"cannot be made to work on JAX 99\.1\.0 .*gone_in_this_version"):
        _load.load()


def test_probe_notices_a_wrong_kernel(monkeypatch):
    monkeypatch.setattr(
        _mend.empirical, "_eqn_vjp_fn", lambda eqn, cotangent, *invals: [2 * cotangent] * len(invals)
    )
    with pytest.raises((AssertionError, TypeError, ValueError)):
        _mend.probe(nt)
