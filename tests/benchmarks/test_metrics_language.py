from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.benchmarks.metrics import Accumulator, compare, get_metric
from edgeq.benchmarks.metrics.divergence import BINS, PER_DOUBLING, kl, share_divergences
from edgeq.benchmarks.metrics.windows import WindowMetric
from edgeq.calibration.types import Array, Batch
from edgeq.errors import DataError, UsageError

NAMES = ("kl", "kl_p99", "top1_agreement")
seeds = st.integers(0, 10_000)


def windows(samples: int, tokens: int, vocabulary: int, seed: int = 0) -> Batch:
    ids = np.random.default_rng(seed).integers(0, vocabulary, (samples, tokens))
    return Batch({"input_ids": ids}, None, samples)


def logits(batch: Batch, vocabulary: int, noise: float, seed: int = 0) -> tuple[Array, Array]:
    """The artefact's and the baseline's, which differ by ``noise`` times a factor of each position."""
    rng = np.random.default_rng(seed)
    shape = (*batch.inputs["input_ids"].shape, vocabulary)
    theirs = rng.normal(0, 3, shape).astype(np.float32)
    error = rng.normal(0, noise, shape) * rng.lognormal(0, 1, (*shape[:2], 1))
    return (theirs + error).astype(np.float32), theirs


def exact(ours: Array, theirs: Array) -> Array:
    """KL of every position but the last, straight from its definition."""
    p, q = (np.exp(x.astype(np.float64)) for x in (theirs[:, :-1], ours[:, :-1]))
    p, q = p / p.sum(2, keepdims=True), q / q.sum(2, keepdims=True)
    return np.asarray((p * np.log(p / q)).sum(2))


def value(name: str, ours: Array, theirs: Array, batch: Batch) -> float:
    accumulator = Accumulator(get_metric(name))
    accumulator.update({"logits": ours}, batch, {"logits": theirs})
    return accumulator.value()


@given(seeds, st.sampled_from([1e-3, 0.1, 0.7]))
@settings(max_examples=20)
def test_like_the_definition(seed: int, noise: float) -> None:
    batch = windows(3, 40, 50, seed)
    ours, theirs = logits(batch, 50, noise, seed)
    wanted = exact(ours, theirs)
    assert value("kl", ours, theirs, batch) == pytest.approx(wanted.mean(), rel=1e-9, abs=1e-13)
    same = (ours.argmax(2) == theirs.argmax(2))[:, :-1]
    assert value("top1_agreement", ours, theirs, batch) == pytest.approx(same.mean())


@given(seeds, st.sampled_from([1e-3, 0.1, 0.7]))
@settings(max_examples=20)
def test_percentile_is_within_a_bin(seed: int, noise: float) -> None:
    batch = windows(4, 60, 20, seed)
    ours, theirs = logits(batch, 20, noise, seed)
    wanted = np.quantile(exact(ours, theirs), 0.99, method="inverted_cdf")
    factor = 2 ** (1 / PER_DOUBLING)
    assert wanted / factor < value("kl_p99", ours, theirs, batch) < wanted * factor


def test_equal_models() -> None:
    batch = windows(2, 30, 40)
    _, theirs = logits(batch, 40, 0.0)
    assert [value(name, theirs.copy(), theirs, batch) for name in NAMES] == [0.0, 0.0, 1.0]


def test_logits_that_overflow_without_care() -> None:
    ours, theirs = np.float32([[3e4, 0, -3e4]]), np.float32([[0, 3e4, 3e4]])
    assert kl(ours, theirs) == pytest.approx([0.5 * (3e4 + 6e4) - np.log(2)])
    assert kl(theirs, theirs) == [0.0]


def test_a_shift_of_all_logits_changes_nothing() -> None:
    batch = windows(1, 20, 30)
    _, theirs = logits(batch, 30, 0.0)
    assert value("kl", theirs + np.float32(8), theirs, batch) == pytest.approx(0, abs=1e-10)


def test_vocabulary_larger_than_a_part() -> None:
    batch = windows(1, 4, 300_000)
    ours, theirs = logits(batch, 300_000, 0.1)
    assert value("kl", ours, theirs, batch) == pytest.approx(exact(ours, theirs).mean())


@pytest.mark.parametrize("name", [*NAMES, "perplexity"])
def test_masked_positions_do_not_count(name: str) -> None:
    batch = windows(2, 12, 9)
    ours, theirs = logits(batch, 9, 0.5)
    mask = np.ones((2, 12), np.int64)
    mask[0, 7:] = 0
    masked = Batch({**batch.inputs, "attention_mask": mask}, None, 2)
    found = value(name, ours, theirs, masked)
    ours[0, 7:], theirs[0, 6:] = 1e4 * np.arange(9), 0
    ours[0, 6] = 5
    assert value(name, ours, theirs, masked) == found
    short = Batch({"input_ids": batch.inputs["input_ids"][:1, :7]}, None, 1)
    rest = Batch({"input_ids": batch.inputs["input_ids"][1:]}, None, 1)
    parts = Accumulator(get_metric(name))
    for part, rows, tokens in ((short, slice(0, 1), 7), (rest, slice(1, 2), 12)):
        parts.update({"logits": ours[rows, :tokens]}, part, {"logits": theirs[rows, :tokens]})
    assert parts.value() == pytest.approx(found)


@pytest.mark.parametrize("name", NAMES)
def test_scores_of_windows_add_up(name: str) -> None:
    batch = windows(5, 20, 30)
    ours, theirs = logits(batch, 30, 0.3)
    alone = Accumulator(get_metric(name))
    for i in range(5):
        one = Batch({"input_ids": batch.inputs["input_ids"][i : i + 1]}, None, 1)
        alone.update({"logits": ours[i : i + 1]}, one, {"logits": theirs[i : i + 1]})
    assert alone.value() == pytest.approx(value(name, ours, theirs, batch))


@pytest.mark.parametrize("name", NAMES)
def test_interval_holds_the_value_and_narrows(name: str) -> None:
    widths = []
    for samples in (10, 160):
        batch = windows(samples, 24, 12)
        ours, theirs = logits(batch, 12, 0.4)
        metric = get_metric(name)
        accumulator = Accumulator(metric)
        accumulator.update({"logits": ours}, batch, {"logits": theirs})
        found = compare(metric, accumulator.scores, seed=1)
        assert found.low is not None
        assert found.high is not None
        assert (found.baseline, found.method) == (None, "bootstrap")
        assert found.low < found.value < found.high
        assert found == compare(metric, accumulator.scores, seed=1)
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2


def test_interval_of_the_mean_is_the_known_one() -> None:
    """For a mean over windows of the same length, the bootstrap agrees with the normal interval."""
    scores = np.stack([np.random.default_rng(0).normal(5, 1, 400), np.full(400, 1.0)], axis=1)
    found = compare(get_metric("kl"), scores)
    half = 1.96 * scores[:, 0].std() / 20
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.01)


def test_shared_divergences_are_the_same() -> None:
    metrics = [get_metric(name) for name in NAMES]
    share_divergences(metrics)
    for seed in range(3):
        batch = windows(2, 10, 8, seed)
        ours, theirs = logits(batch, 8, 0.5, seed)
        for metric in metrics:
            assert isinstance(metric, WindowMetric)
            shared = metric.scores({"logits": ours}, batch, {"logits": theirs})
            own = get_metric(metric.name).scores({"logits": ours}, batch, {"logits": theirs})
            np.testing.assert_array_equal(shared, own)
        # The arrays of a batch may be the next batch's buffers.
        ours += 1
        ours[:, 0] = 0


def test_outputs_in_the_same_buffers_are_read_again() -> None:
    metric = get_metric("kl")
    first, second = windows(1, 10, 8), windows(1, 10, 8, 1)
    ours, theirs = logits(first, 8, 0.5)
    before = metric.scores({"logits": ours}, first, {"logits": theirs})
    ours[:] = theirs
    assert before[0, 0] > 0
    assert metric.scores({"logits": ours}, second, {"logits": theirs})[0, 0] == 0


def test_histogram_is_small() -> None:
    batch = windows(3, 10, 8)
    ours, theirs = logits(batch, 8, 0.5)
    scores = get_metric("kl_p99").scores({"logits": ours}, batch, {"logits": theirs})
    assert scores.shape == (3, BINS + 2)
    assert scores.sum() == 27


@pytest.mark.parametrize("name", NAMES)
def test_windows_of_one_token(name: str) -> None:
    batch = windows(2, 1, 8)
    ours, theirs = logits(batch, 8, 0.5)
    with pytest.raises(DataError, match=r"has no token to predict\. Use windows of two tokens or more"):
        value(name, ours, theirs, batch)


def test_other_vocabulary() -> None:
    batch = windows(1, 5, 8)
    ours, _ = logits(batch, 8, 0.5)
    _, theirs = logits(batch, 9, 0.5)
    with pytest.raises(UsageError, match="vocabulary of 8 tokens with the baseline's 9"):
        value("kl", ours, theirs, batch)
