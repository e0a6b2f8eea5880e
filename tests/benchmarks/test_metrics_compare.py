from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.benchmarks.metrics import Accumulator, Flips, Scores, compare, get_metric
from edgeq.benchmarks.metrics.compare import bootstrap_interval, newcombe_interval, wilson_interval
from edgeq.calibration.types import Array
from tests.support.metric_data import batch


def scores(name: str, out: Array, labels: Array) -> Scores:
    accumulator = Accumulator(get_metric(name))
    accumulator.update({"out": out}, batch(len(out), labels))
    return accumulator.scores


def paired(both: int, gained: int, lost: int, neither: int) -> tuple[Scores, Scores]:
    before = np.r_[np.ones(both), np.zeros(gained), np.ones(lost), np.zeros(neither)]
    after = np.r_[np.ones(both), np.ones(gained), np.zeros(lost), np.zeros(neither)]
    return before, after


def test_flips_and_difference() -> None:
    labels = np.array([0, 1, 2, 0, 1])
    before = np.eye(3)[[0, 1, 2, 1, 0]]
    after = np.eye(3)[[0, 2, 2, 0, 2]]
    result = compare(get_metric("top1"), scores("top1", after, labels), scores("top1", before, labels))
    assert (result.samples, result.method) == (5, "newcombe")
    assert (result.baseline, result.value) == (pytest.approx(0.6), pytest.approx(0.6))
    assert result.difference == pytest.approx(0)
    assert result.flips == Flips(changed=3, lost=1, gained=1)
    assert result.low is not None
    assert result.high is not None
    assert result.low < 0 < result.high


def test_published_example() -> None:
    # Airway hyper-responsiveness before and after stem cell transplantation (Bentur et al. 2009), the example
    # of M. W. Fagerland, S. Lydersen, P. Laake, "Statistical Analysis of Contingency Tables", chapter 8.
    low, high = newcombe_interval(*paired(both=1, gained=1, lost=7, neither=12))
    assert (round(low, 3), round(high, 3)) == (-0.507, -0.026)


def test_wilson_interval() -> None:
    assert wilson_interval(0, 10) == (pytest.approx(0.0, abs=1e-12), pytest.approx(0.27753, abs=1e-5))
    assert wilson_interval(5, 10) == (pytest.approx(0.23659, abs=1e-5), pytest.approx(0.76341, abs=1e-5))


counts = st.integers(0, 60)


@given(counts, counts, counts, counts)
def test_interval_is_antisymmetric_and_holds_the_difference(a: int, b: int, c: int, d: int) -> None:
    if a + b + c + d == 0:
        return
    before, after = paired(a, b, c, d)
    low, high = newcombe_interval(before, after)
    back_low, back_high = newcombe_interval(after, before)
    assert -1 - 1e-9 <= low <= after.mean() - before.mean() + 1e-12
    assert after.mean() - before.mean() - 1e-12 <= high <= 1 + 1e-9
    assert (low, high) == (pytest.approx(-back_high), pytest.approx(-back_low))


def test_interval_is_not_empty_without_a_flip_and_narrows() -> None:
    few, many = newcombe_interval(*paired(16, 0, 0, 4)), newcombe_interval(*paired(1600, 0, 0, 400))
    assert few[0] < many[0] < 0 < many[1] < few[1]


@pytest.mark.parametrize("method", ["newcombe", "bootstrap"])
def test_coverage(method: str) -> None:
    """The interval holds the true difference about 95 times of 100."""
    rng = np.random.default_rng(5)
    metric, rounds, held = get_metric("accuracy"), 200, 0
    for _ in range(rounds):
        before = (rng.random(150) < 0.8).astype(float)
        flip = rng.random(150)
        after = np.where(before > 0, flip >= 0.06, flip < 0.04).astype(float)
        truth = 0.8 * 0.94 + 0.2 * 0.04 - 0.8
        if method == "newcombe":
            low, high = newcombe_interval(before, after)
        else:
            rows = [np.stack([x, np.ones(150), np.full(150, 2)], 1) for x in (before, after)]
            low, high = bootstrap_interval(metric, rows[0], rows[1], resamples=100)
        held += low <= truth <= high
    assert 0.90 <= held / rounds <= 0.99


def test_bootstrap_of_f1_is_seeded_and_paired() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    before = np.eye(4)[labels] + rng.normal(size=(200, 4)) * 0.6
    after = before + rng.normal(size=(200, 4)) * 0.05
    one, two = scores("f1_macro", before, labels), scores("f1_macro", after, labels)
    metric = get_metric("f1_macro")
    result = compare(metric, two, one, seed=1)
    assert result == compare(metric, two, one, seed=1)
    assert result.method == "bootstrap"
    assert result.low is not None
    assert result.high is not None
    assert result.low <= (result.difference or 0) <= result.high
    # Paired: far narrower than the interval of either value, which is about ±0.06 for 200 samples.
    assert result.high - result.low < 0.06
    assert compare(metric, two, one, seed=2).low != result.low


def test_identical_models_differ_by_nothing() -> None:
    labels = np.arange(50) % 3
    out = np.eye(3)[(labels + (np.arange(50) % 7 == 0)) % 3]
    for name in ("top1", "f1_macro"):
        rows = scores(name, out, labels)
        result = compare(get_metric(name), rows, rows)
        assert result.difference == 0
        assert result.flips == Flips(0, 0, 0)


def test_metrics_against_the_baseline_have_no_baseline_value() -> None:
    accumulator = Accumulator(get_metric("sqnr"))
    accumulator.update({"out": np.ones((2, 2))}, batch(2), {"out": np.ones((2, 2)) * 1.1})
    result = compare(accumulator.metric, accumulator.scores)
    assert result.value == pytest.approx(10 * np.log10(1.21 / 0.01))
    assert result.baseline is result.difference is result.low is result.flips is None


def test_perplexity_resamples_windows() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 8, (30, 16))
    logits = rng.normal(size=(30, 16, 8))
    rows = []
    for noise in (0.0, 0.3):
        accumulator = Accumulator(get_metric("perplexity"))
        noisy = logits + noise * rng.normal(size=logits.shape)
        accumulator.update({"logits": noisy}, batch(30, None, input_ids=ids))
        rows.append(accumulator.scores)
    result = compare(get_metric("perplexity"), rows[1], rows[0])
    assert result.flips is None
    assert result.low is not None
    assert result.high is not None
    assert result.low < (result.difference or 0) < result.high
