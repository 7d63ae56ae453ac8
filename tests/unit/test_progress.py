"""Bars of long jitted loops: a step for each of the loop's, the same numbers with and without, off where they
must be."""

import jax
import numpy as np
import pytest

from ntk_helpers import MLP, empirical_ntk, empirical_ntk_cost, sample_ntk
from ntk_helpers._lib import progress as _progress
from ntk_helpers.finite import sampling

NET = MLP(3, 40, sigma_b2=0.1)
X = np.random.default_rng(0).normal(size=(8, 3))


def counts(bars):
    return [(bar.desc, bar.n, bar.total, bar.unit) for bar in bars]


@pytest.mark.parametrize("other", [None, X[:6] + 1])
def test_empirical_ntk_moves_the_bar_at_every_block(bars, other):
    params = NET.init(jax.random.key(0), 3)
    whole = empirical_ntk(NET, params, X, other)
    assert not bars
    smallest = empirical_ntk_cost(NET, params, X[:1], None if other is None else other[:1])
    cost = empirical_ntk_cost(NET, params, X, other, memory_budget=(budget := 4 * smallest.bytes))
    rows, columns = -(-8 // cost.block[0]), -(-len(X if other is None else other) // cost.block[1])
    blocks = sum(i <= j for i in range(rows) for j in range(columns)) if other is None else rows * columns
    split = empirical_ntk(NET, params, X, other, memory_budget=budget)
    assert blocks > 1
    assert counts(bars) == [("empirical_ntk", blocks, blocks, "block")]
    np.testing.assert_allclose(split, whole, rtol=1e-12, atol=1e-12)


def test_sample_ntk_moves_the_bar_at_every_batch(bars, monkeypatch):
    key = jax.random.key(1)
    whole = sample_ntk(NET, key, X, 10)
    assert not bars
    monkeypatch.setattr(sampling, "BATCH_BYTES", 5 * 8 * 8 * 81 * 3)
    np.testing.assert_allclose(sample_ntk(NET, key, X, 10), whole, rtol=1e-12)
    assert counts(bars) == [("sample_ntk", 4, 4, "batch")]


def test_the_bar_is_written(bars):
    with _progress.progress(3, "kernel", "block", ()) as ticks:
        jax.jit(lambda: jax.lax.fori_loop(0, 3, lambda i, _: _progress.tick(), None))()
    assert ticks and "kernel: 100%" in bars[0].fp.getvalue()


def test_nothing_is_shown_in_traced_code(bars, monkeypatch):
    monkeypatch.setattr(sampling, "BATCH_BYTES", 1)
    kernels = jax.jit(lambda x: sample_ntk(NET, jax.random.key(1), x, 10))
    assert "callback" not in kernels.lower(X).as_text() and not bars


def test_tqdm_disabled_means_no_callback():
    with _progress.progress(3, "kernel", "block", ()) as ticks:
        assert not ticks


def test_a_failure_takes_its_bar_away(bars):
    with pytest.raises(ZeroDivisionError), _progress.progress(3, "kernel", "block", ()):
        1 / 0
    assert not _progress._running
    _progress._update()
