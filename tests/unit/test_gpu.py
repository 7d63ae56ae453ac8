"""make gpu, tried on the CPU in tiny sizes: it finds what is wrong, goes on after it, and keeps the time."""

import json
import time

import gpu
import gpu_checks
import gpu_times
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rivals

from ntk_helpers.book import digest


@pytest.fixture
def out(tmp_path):
    return tmp_path / "gpu.json"


@pytest.mark.slow
def test_a_tiny_run_checks_and_times_everything_and_stores_it(out, monkeypatch):
    every = dict(gpu_checks.checked_kernels(gpu_checks.TINY))
    kept = (
        "infinite, tanh, depth 4",
        "empirical, trace, ntk_vp",
        "empirical, transformer, structured",
        "tiled",
    )
    monkeypatch.setattr(gpu_checks, "checked_kernels", lambda sizes: ((name, every[name]) for name in kept))
    monkeypatch.setattr(gpu_times, "NT_METHODS", ["structured derivatives"])
    assert gpu.main(["--tiny", "--out", str(out)]) == 0
    content = json.loads(out.read_text())
    about, rows = content["about"], content["rows"]
    assert about["sha256"] == digest(rows) and about["device"] == jax.devices()[0].device_kind
    checks = {row["what"]: row for row in rows if row["section"] == "check"}
    assert checks.keys() == {*kept, "law of sample_ntk, standard errors"}
    names = [name for name, *_ in gpu_checks.PRECISIONS]
    assert all(list(checks[name])[2:] == names and checks[name]["float64"] < 1e-10 for name in kept)
    times = [row for row in rows if row["section"] == "time"]
    assert {row["who"] for row in times} >= {"JAX", "ntk_helpers", "neural-tangents, stax"}
    assert all(row["seconds"] > 0 for row in times)
    assert sum("of_peak" in row for row in times) == 4  # both empirical kernels, both infinite ones


def test_the_kernels_that_are_checked_are_all_of_them():
    names = [name for name, _ in gpu_checks.checked_kernels(gpu_checks.Sizes())]
    assert len(set(names)) == len(names)
    for part in ("gelu", "erf", "full", "diagonal", "structured", "jacobian", "ntk_vp", "CNN", "tiled"):
        assert any(part in name for name in names)


def test_what_fails_is_recorded_by_name_and_the_rest_goes_on(out, capsys):
    run = gpu.Run(out, {}, 60)

    def broken():
        raise RuntimeError("out of memory\nand much more")

    run.case("time", "a kernel", broken, who="somebody")
    run.case("time", "another", lambda: {"seconds": 1.0})
    failed, fine = json.loads(out.read_text())["rows"]
    assert failed["failed"] == "RuntimeError: out of memory" and failed["who"] == "somebody"
    assert fine == {"section": "time", "what": "another", "seconds": 1.0}
    assert "Traceback" in capsys.readouterr().err


def test_without_time_everything_is_left_out_by_name(out, monkeypatch, capsys):
    monkeypatch.setattr(gpu_checks, "compare", lambda kernel: time.sleep(0.1))
    monkeypatch.setattr(gpu_checks, "compare_law", lambda draws: None)
    assert gpu.main(["--tiny", "--seconds", "0", "--out", str(out)]) == 1
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) > 30 and all("no time" in row["failed"] for row in rows)
    assert capsys.readouterr().out.count("FAILED") == len(rows)


@pytest.mark.parametrize("wrong", ["float32, TF32", "float64"])
def test_a_kernel_that_is_off_or_not_finite_is_found(wrong):
    calls = iter(["reference", *(name for name, *_ in gpu_checks.PRECISIONS)])

    def kernel(dtype):
        off = {"float32, TF32": 1e-3, "float64": np.nan}[wrong] if next(calls) == wrong else 0.0
        return jnp.ones((2, 2), dtype) * (1 + jnp.asarray(off, dtype))

    assert gpu_checks.compare(kernel)["failed"] == f"too far from the CPU's value: {wrong}"


def test_another_law_is_found(monkeypatch):
    sample = gpu_checks.sample_ntk
    monkeypatch.setattr(gpu_checks, "sample_ntk", lambda *arguments: 1.5 * sample(*arguments))
    assert gpu_checks.compare_law(400)["failed"] == "another law: float32, float64"


def test_a_rival_with_another_result_is_not_timed():
    with pytest.raises(AssertionError, match="from ours"):
        gpu_times.timed(lambda: np.ones(2), expected=np.array([1.0, 1.1]))


def test_pytorchs_kernel_is_ours():
    pytest.importorskip("torch")
    net, (params, x1, x2) = gpu_times.finite_problem(8, 3)
    for output in ("full", "trace"):
        kernel, put = rivals.torch_empirical(net, output, "cpu")
        expected = gpu_times.empirical_ntk(net, params, x1, x2, output)
        np.testing.assert_allclose(kernel(*put((params, x1, x2))), expected, rtol=1e-4, atol=1e-4)


def test_without_a_gpu_it_says_so(out, capsys):
    if jax.default_backend() == "gpu":
        pytest.skip("there is one")
    with pytest.raises(SystemExit):
        gpu.main(["--tiny"])  # would be stored
    assert gpu.main(["--out", str(out)]) == 2
    assert "JAX sees no GPU" in capsys.readouterr().err and not out.exists()
