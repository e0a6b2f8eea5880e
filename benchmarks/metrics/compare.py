"""Baseline against artefact on the same samples: difference, its 95 % interval, and flips."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgeq.benchmarks.metrics.base import Flips, Metric, NonFiniteOutputError, Scores, SummedMetric
from edgeq.calibration.types import Arrays, Batch
from edgeq.errors import DataError

RESAMPLES = 2000
Z95 = 1.959963984540054
# Percent of the resamples outside the interval on each side.
TAIL = 2.5


@dataclass(frozen=True)
class Comparison:
    """A metric of the artefact beside the baseline's, measured on the same ``samples``.

    ``difference`` = value - baseline, ``low``/``high`` its 95 % interval, ``method`` how that was computed
    (``newcombe`` or ``bootstrap``). ``baseline`` and ``difference`` are None for metrics that compare with
    the baseline by themselves (KL, PSNR, cosine, SQNR); their interval, where there is one, is of ``value``.
    ``flips`` is None where a sample cannot flip.
    """

    metric: str
    samples: int
    value: float
    baseline: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    method: str | None = None
    flips: Flips | None = None


class Accumulator:
    """Collects a metric's scores over batches, in order.

    It keeps a row of float64 per sample, not the outputs, and counts samples so that a failure names the
    sample of the set, not of the batch.
    """

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.samples = 0
        self._parts: list[Scores] = []

    def update(self, outputs: Arrays, batch: Batch, baseline: Arrays | None = None) -> None:
        """Add the scores of one batch.

        Raises:
            NonFiniteOutputError: with the index of the sample counted over all batches.
        """
        try:
            scores = self.metric.scores(outputs, batch, baseline)
        except NonFiniteOutputError as error:
            raise NonFiniteOutputError(error.metric, error.output, error.sample + self.samples) from None
        self._parts.append(scores)
        self.samples += batch.size

    @property
    def scores(self) -> Scores:
        """All rows so far, in the order of the samples, finished (:meth:`Metric.finish`).

        Raises:
            DataError: there were no samples.
        """
        if not self._parts:
            raise DataError(f"Metric {self.metric.name!r} was given no samples.", fix="Check the data.")
        return self.metric.finish(np.concatenate(self._parts))

    def value(self) -> float:
        """The metric over all samples so far."""
        return self.metric.aggregate(self.scores)


def compare(metric: Metric, scores: Scores, baseline: Scores | None = None, *, seed: int = 0) -> Comparison:
    """Value, difference from the baseline, 95 % interval and flips of paired scores.

    Args:
        metric: what the scores belong to.
        scores: the artefact's rows, one per sample.
        baseline: the baseline's rows for the same samples in the same order; None when the metric
            compares with the baseline by itself.
        seed: of the bootstrap; the same scores and seed give the same interval.
    """
    value = metric.aggregate(scores)
    if baseline is None or metric.needs_baseline:
        return _alone(metric, scores, value, seed)
    reference = metric.aggregate(baseline)
    paired = metric.correct(baseline, scores)
    if paired is not None:
        low, high = newcombe_interval(*paired)
        method = "newcombe"
    else:
        low, high = bootstrap_interval(metric, baseline, scores, seed=seed)
        method = "bootstrap"
    flips = metric.flips(baseline, scores)
    return Comparison(metric.name, len(scores), value, reference, value - reference, low, high, method, flips)


def _alone(metric: Metric, scores: Scores, value: float, seed: int) -> Comparison:
    if not metric.needs_baseline or not isinstance(metric, SummedMetric):
        return Comparison(metric.name, len(scores), value)
    low, high = _tails(_drawn(metric, scores, seed, RESAMPLES))
    return Comparison(metric.name, len(scores), value, low=low, high=high, method="bootstrap")


def newcombe_interval(before: Scores, after: Scores) -> tuple[float, float]:
    """95 % interval of the difference of two paired proportions, ``mean(after) - mean(before)``.

    ``before`` and ``after`` are 0/1 per sample. Method 10 of R. G. Newcombe, "Improved confidence intervals
    for the difference between binomial proportions based on paired data", Statistics in Medicine 17 (1998)
    2635-2650: Wilson score limits joined with the continuity-corrected phi coefficient. Unlike the normal
    approximation it is not empty when no sample changed.
    """
    n = len(after)
    both = int(np.sum((after > 0) & (before > 0)))
    gained = int(np.sum((after > 0) & (before <= 0)))
    lost = int(np.sum((after <= 0) & (before > 0)))
    neither = n - both - gained - lost
    p, q = (both + gained) / n, (both + lost) / n
    low_p, high_p = wilson_interval(both + gained, n)
    low_q, high_q = wilson_interval(both + lost, n)
    phi = _corrected_phi(both, gained, lost, neither)
    below = _joined(p - low_p, high_q - q, phi)
    above = _joined(high_p - p, q - low_q, phi)
    return p - q - below, p - q + above


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """95 % score interval of a proportion: E. B. Wilson, JASA 22 (1927) 209-212."""
    p = successes / n
    centre = p + Z95**2 / (2 * n)
    half = Z95 * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n))
    scale = 1 + Z95**2 / n
    return (centre - half) / scale, (centre + half) / scale


def _corrected_phi(both: int, gained: int, lost: int, neither: int) -> float:
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    if margins == 0:
        return 0.0
    n = both + gained + lost + neither
    product = float(both * neither - gained * lost)
    if product > 0:
        product = max(product - n / 2, 0.0)
    return product / math.sqrt(margins)


def _joined(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))


def bootstrap_interval(
    metric: Metric, before: Scores, after: Scores, *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """95 % percentile interval of ``aggregate(after) - aggregate(before)``, resampling pairs of samples."""
    # The same seed draws the same samples for both.
    return _tails(_drawn(metric, after, seed, resamples) - _drawn(metric, before, seed, resamples))


def _drawn(metric: Metric, scores: Scores, seed: int, resamples: int) -> Scores:
    """The metric's values for resampled rows."""
    generator = np.random.default_rng(seed)
    n = len(scores)
    draws = (generator.integers(0, n, n) for _ in range(resamples))
    if not isinstance(metric, SummedMetric):
        return np.array([metric.aggregate(scores[rows]) for rows in draws])
    counts = (np.bincount(rows, minlength=n) for rows in draws)
    return np.array([metric.value(count @ scores) for count in counts])


def _tails(values: Scores) -> tuple[float, float]:
    low, high = np.percentile(values, [TAIL, 100 - TAIL])
    return float(low), float(high)
