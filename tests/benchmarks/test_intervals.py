from __future__ import annotations

import numpy as np
import pytest

from edgeq.benchmarks.intervals import MIN_BLOCKS, Times, block_bootstrap, first, median_ratio


def series(seed: int, blocks: int, center: float, drift: Times) -> Times:
    noise = np.random.default_rng(seed).normal(0, 0.02 * center, (blocks, 10))
    return (center + noise) * drift[:, None]


def test_ratio_of_drifting_machines_is_found() -> None:
    """Both models slow down together by 50 %: the ratio does not move."""
    drift = np.linspace(1, 1.5, 40)
    found = block_bootstrap(series(1, 40, 1.0, drift), series(2, 40, 2.0, drift), {"speedup": median_ratio})[
        "speedup"
    ]
    assert found.interval is not None
    low, high = found.interval
    assert low < 2 < high
    assert high - low < 0.2
    assert found.value == pytest.approx(2, rel=0.03)


def test_one_outlier_moves_no_median() -> None:
    calm = series(1, 20, 1.0, np.ones(20))
    disturbed = calm.copy()
    disturbed[3] *= 100
    names = {"p50": first(50), "speedup": median_ratio}
    a = block_bootstrap(calm, calm, names)
    b = block_bootstrap(disturbed, calm, names)
    assert b["p50"].value == pytest.approx(a["p50"].value, rel=0.01)
    assert b["speedup"].value == pytest.approx(1, rel=0.01)


def test_correlated_times_widen_the_interval() -> None:
    """Blocks that differ carry less information than their number of times suggests."""
    same = series(1, 30, 1.0, np.ones(30))
    wobbling = series(1, 30, 1.0, np.random.default_rng(5).normal(1, 0.2, 30))

    def width(times: Times) -> float:
        interval = block_bootstrap(times, times, {"p50": first(50)})["p50"].interval
        assert interval is not None
        return interval[1] - interval[0]

    assert width(wobbling) > 3 * width(same)


def test_same_seed_same_interval() -> None:
    a, b = series(1, 12, 1.0, np.ones(12)), series(2, 12, 1.5, np.ones(12))
    runs = [block_bootstrap(a, b, {"speedup": median_ratio}, seed=s)["speedup"] for s in (7, 7, 8)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_too_few_blocks_have_no_interval() -> None:
    times = series(1, MIN_BLOCKS - 1, 1.0, np.ones(MIN_BLOCKS - 1))
    assert block_bootstrap(times, times, {"p50": first(50)})["p50"].interval is None
