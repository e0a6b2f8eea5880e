"""The rounding noise of a tensor whose channels are scaled, from one histogram per channel.

The buckets of a histogram are quarters of an octave, so scaling a channel by 2^(m/4) shifts its histogram by
m buckets. The threshold of the range follows from the pooled histogram, as calibration will choose it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgeq.calibration.types import Array

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

PER_OCTAVE = 4
# Magnitudes from 2^-24 to 2^16; what is smaller counts as the smallest, what is larger as the largest.
_FIRST, _BUCKETS = (127 - 24) * PER_OCTAVE, 40 * PER_OCTAVE
_CUT = 1e-5  # share of the values that a percentile range cuts off
_TRIED = 4 * PER_OCTAVE  # thresholds tried, down from the largest value


def _edges() -> tuple[Floats, Floats]:
    """Bounds of the buckets: a float32's upper 11 bits hold sign, exponent and two bits of the mantissa."""
    bits = (np.arange(_FIRST, _FIRST + _BUCKETS + 1, dtype=np.uint32)) << np.uint32(21)
    bounds = bits.view(np.float32).astype(np.float64)
    return bounds[:-1], bounds[1:]


_LOW, HIGH = _edges()
_MIDDLE = (_LOW + HIGH) / 2
MEAN_SQUARES = (_LOW * _LOW + _LOW * HIGH + HIGH * HIGH) / 3


@dataclass
class ChannelHistograms:
    """Observer: a histogram of magnitudes per channel of some tensors, and whether they are ever negative.

    ``axes``: tensor → axis of its channels. ``counts``: int64 [channels, buckets].
    """

    axes: Mapping[str, int]
    counts: dict[str, Counts] = field(default_factory=dict)
    negative: dict[str, bool] = field(default_factory=dict)

    @property
    def tensors(self) -> list[str]:
        return list(self.axes)

    def observe(self, name: str, array: Array) -> None:
        """Take in the values of one batch."""
        axis = self.axes[name]
        channels = array.shape[axis]
        outer = int(np.prod(array.shape[:axis]))
        parts = np.ascontiguousarray(array, np.float32).reshape(outer, channels, -1)
        bits = (parts.view(np.uint32) & np.uint32(0x7FFFFFFF)) >> np.uint32(21)
        buckets = np.clip(bits.astype(np.int64) - _FIRST, 0, _BUCKETS - 1)
        buckets += (np.arange(channels) * _BUCKETS)[None, :, None]
        found = np.bincount(buckets.ravel(), minlength=channels * _BUCKETS).reshape(channels, _BUCKETS)
        self.counts[name] = self.counts[name] + found if name in self.counts else found
        self.negative[name] = self.negative.get(name, False) or bool(array.min(initial=0) < 0)


def scaled_noise(shares: Floats, weights: Floats, steps: npt.NDArray[np.int64], levels: int) -> float:
    """Expected squared error of a tensor's rounding, weighted per channel.

    Args:
        shares: histograms, [channels, buckets], each of sum 1.
        weights: what an error of each channel costs, [channels], after scaling.
        steps: channel k is divided by 2^(steps[k] / 4).
        levels: steps between 0 and the largest magnitude.
    """
    shifted = np.zeros_like(shares)
    for step in np.unique(steps).tolist():
        rows = steps == step
        if step > 0:
            shifted[rows, :-step] = shares[rows, step:]
        elif step < 0:
            shifted[rows, -step:] = shares[rows, :step]
        else:
            shifted[rows] = shares[rows]
    return _least_noise(shifted.sum(axis=0), weights @ shifted, levels)


def _least_noise(pooled: Floats, weighted: Floats, levels: int) -> float:
    """The noise with the best of the ranges that calibration tries: all values, percentile, squared error."""
    filled = np.flatnonzero(pooled)
    if filled.size == 0:
        return 0.0
    first = max(0, int(filled[-1]) - _TRIED)
    bounds = HIGH[first : int(filled[-1]) + 1, None]
    width = bounds / levels
    errors = np.where(width / 2 > _MIDDLE, MEAN_SQUARES, width**2 / 12)
    errors = np.where(bounds < _MIDDLE, (_MIDDLE - bounds) ** 2, errors)
    beyond = pooled.sum() - np.cumsum(pooled)[first : int(filled[-1]) + 1]
    percentile = int(np.argmax(beyond <= _CUT * pooled.sum()))
    squared = int(np.argmin(errors @ pooled))
    found = errors @ weighted
    return float(min(found[percentile], found[squared], found[-1]))
