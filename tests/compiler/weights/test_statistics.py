"""Sums over inputs: by batches, by shards, and all at once are the same."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.compiler.weights.diagnosis import outlier_ratio
from edgeq.compiler.weights.statistics import InputStatistics

X = np.random.default_rng(0).standard_normal((60, 1500)).astype(np.float32)


def seen(*parts: np.ndarray, hessian: bool = True) -> InputStatistics:
    found = InputStatistics.empty(X.shape[1], hessian=hessian)
    for part in parts:
        found.update(part)
    return found


def test_sums_are_those_of_the_inputs() -> None:
    found = seen(X[:17], X[17:])
    assert found.tokens == 60
    assert found.hessian is not None
    wide = X.astype(np.float64)
    np.testing.assert_allclose(found.hessian, wide.T @ wide, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.squares, (wide**2).sum(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.absolute, np.abs(wide).sum(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(found.largest, np.abs(X).max(axis=0))


@pytest.mark.parametrize("hessian", [True, False])
def test_shards_add_up(hessian: bool) -> None:
    merged = seen(X[:20], hessian=hessian)
    merged.merge(seen(X[20:], hessian=hessian))
    whole = seen(X[:20], X[20:], hessian=hessian)
    assert merged.tokens == whole.tokens
    for name in ("squares", "absolute", "largest", "hessian"):
        if getattr(whole, name) is not None:
            np.testing.assert_allclose(getattr(merged, name), getattr(whole, name), rtol=1e-5, atol=1e-4)


def test_outliers() -> None:
    loud = X.copy()
    loud[:, 3] *= 100
    assert outlier_ratio(seen(loud)) > 30
    assert outlier_ratio(seen(X)) < 3
    assert outlier_ratio(seen()) == 1
