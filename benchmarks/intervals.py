"""Confidence intervals of noisy times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]
Statistic = Callable[[Times, Times], float]

RESAMPLES = 1000
# With fewer blocks than this the bootstrap's tails are made of the same few blocks: no interval is given.
MIN_BLOCKS = 6


@dataclass(frozen=True)
class Estimate:
    """A statistic of all times, and its 95 % interval (None with too few blocks)."""

    value: float
    interval: tuple[float, float] | None


def block_bootstrap(
    ours: Times, theirs: Times, statistics: Mapping[str, Statistic], *, seed: int = 0
) -> dict[str, Estimate]:
    """Statistics of two interleaved series of times with their 95 % percentile intervals.

    Consecutive times are not independent (frequency, caches, other processes), so that whole blocks are
    resampled, and the block of one model together with its neighbour of the other: what slowed the machine
    for a while slowed both. (B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 8.)

    Args:
        ours: [blocks, times per block], seconds.
        theirs: the same of the other model; pass ``ours`` again where there is no other.
        statistics: name → function of both series, flattened.
        seed: the same times and seed give the same interval.
    """
    blocks = len(ours)
    values = {name: function(ours.ravel(), theirs.ravel()) for name, function in statistics.items()}
    if blocks < MIN_BLOCKS:
        return {name: Estimate(value, None) for name, value in values.items()}
    generator = np.random.default_rng(seed)
    drawn: dict[str, Times] = {name: np.empty(RESAMPLES) for name in statistics}
    for i in range(RESAMPLES):
        rows = generator.integers(0, blocks, blocks)
        a, b = ours[rows].ravel(), theirs[rows].ravel()
        for name, function in statistics.items():
            drawn[name][i] = function(a, b)
    return {name: Estimate(value, _tails(drawn[name])) for name, value in values.items()}


def _tails(drawn: Times) -> tuple[float, float]:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def first(percent: float) -> Statistic:
    """The percentile of the first series."""
    return lambda ours, _theirs: float(np.percentile(ours, percent))


def median_ratio(ours: Times, theirs: Times) -> float:
    """How many times faster the first series is: median of the second by median of the first."""
    return float(np.median(theirs) / np.median(ours))
