"""The filled buckets of a sketch as a histogram over real numbers, and quantiles from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from edgeq.errors import DataError

Floats = npt.NDArray[np.float64]

_FINITE = 0x7F80  # Buckets below have an exponent under 255.


@dataclass(frozen=True)
class Histogram:
    """Buckets in ascending order: ``counts[i]`` values lie in ``[low[i], high[i]]`` (all float64 [n]).

    Inside a bucket values are taken as evenly spread. Zeros are a bucket of width 0.
    """

    low: Floats
    high: Floats
    counts: Floats

    @cached_property
    def total(self) -> float:
        """The number of values."""
        return float(self.counts.sum())

    @cached_property
    def middle(self) -> Floats:
        """The value that stands for each bucket."""
        return (self.low + self.high) / 2

    @cached_property
    def below(self) -> Floats:
        """The number of values in all lower buckets."""
        return np.asarray(np.cumsum(self.counts) - self.counts)

    def mean(self) -> float:
        """The mean, within 0.4 % of the mean magnitude."""
        return float((self.middle * self.counts).sum() / self.total)

    def quantile(self, q: float) -> float:
        """The ``q``-quantile by linear interpolation between order statistics, like ``np.quantile``."""
        position = min(max(q, 0.0), 1.0) * (self.total - 1)
        left = math.floor(position)
        a, b = self._order_statistic(left), self._order_statistic(math.ceil(position))
        return a + (b - a) * (position - left)

    def cumulative(self, points: Floats) -> Floats:
        """The number of values ≤ each of ``points`` (any shape), evenly spread inside a bucket."""
        index = np.clip(np.searchsorted(self.low, points, side="right") - 1, 0, None)
        width = self.high[index] - self.low[index]
        inside = points - self.low[index]
        share = np.where(width > 0, inside / np.where(width > 0, width, 1), inside >= 0)
        at_most: Floats = self.below[index] + self.counts[index] * np.clip(share, 0, 1)
        return at_most

    def magnitudes(self) -> Histogram:
        """The histogram of the absolute values."""
        negative = self.high <= 0
        low = np.where(negative, -self.high, self.low)
        high = np.where(negative, -self.low, self.high)
        order = np.lexsort((high, low))
        return Histogram(low[order], high[order], self.counts[order])

    def _order_statistic(self, rank: int) -> float:
        if rank <= 0:
            return float(self.low[0])
        if rank >= self.total - 1:
            return float(self.high[-1])
        i = int(np.searchsorted(self.below, rank, side="right")) - 1
        share = (rank - self.below[i] + 0.5) / self.counts[i]
        return float(self.low[i] + (self.high[i] - self.low[i]) * share)


def histogram_of(counts: npt.NDArray[np.int64], minimum: float, maximum: float) -> Histogram:
    """The histogram of a sketch's counters.

    Raises:
        DataError: all counters are zero.
    """
    negative = _FINITE - 1 - np.flatnonzero(counts[0x8000 + _FINITE - 1 : 0x8000 : -1])
    positive = 1 + np.flatnonzero(counts[1:_FINITE])
    zeros = int(counts[0] + counts[0x8000])
    parts = [-_edges(negative)[::-1], np.zeros((2, 1 if zeros else 0)), _edges(positive)]
    low, high = np.concatenate(parts, axis=1)
    if low.size == 0:
        raise DataError("No value was seen.", fix="Give calibration data that reaches this tensor.")
    filled = np.concatenate([counts[0x8000 + negative], [zeros] if zeros else [], counts[positive]])
    low = np.clip(low, minimum, maximum)
    high = np.clip(high, minimum, maximum)
    return Histogram(low, high, filled.astype(np.float64))


def _edges(keys: npt.NDArray[np.intp]) -> Floats:
    """Lower and upper edge [2, n] of positive buckets. The last bucket ends at float32's largest number."""
    bits = np.stack([keys, keys + 1]).astype(np.uint32) << np.uint32(16)
    edges = bits.view(np.float32).astype(np.float64)
    return np.minimum(edges, float(np.finfo(np.float32).max))
