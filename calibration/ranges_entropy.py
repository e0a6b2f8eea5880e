"""The range whose quantized distribution diverges least from the original one.

The method of TensorRT (Migacz, "8-bit Inference with TensorRT", GTC 2017): for each threshold, P is the
clipped distribution with the outliers added to its outermost bins, Q is the distribution inside the threshold
quantized to the available levels; the threshold with the smallest KL(P ‖ Q) wins. Here P is resampled from
the sketch for each threshold, so the resolution is the same for all of them, whatever the largest outlier.
Zeros are left out: they are exact with every threshold.
"""

from __future__ import annotations

import numpy as np

from edgeq.calibration.affine import Range
from edgeq.calibration.histogram import Floats, Histogram

_THRESHOLDS = 96
_FINE = 4  # bins of P per quantization level
_EPSILON = 1e-9


def entropy_range(histogram: Histogram, bits: int, symmetric: bool) -> Range:
    """The best range. Symmetric: ``histogram`` holds magnitudes, and only ``high`` counts."""
    values = _without_zeros(histogram)
    if values.counts.size == 0:
        return Range(0.0, 0.0)
    smallest, largest = min(float(values.low[0]), 0.0), max(float(values.high[-1]), 0.0)
    thresholds = _thresholds(values.magnitudes())
    lows, highs = np.maximum(-thresholds, smallest), np.minimum(thresholds, largest)
    levels = 2 ** (bits - 1) - 1 if symmetric else 2**bits - 1
    divergences = _divergences(values, lows, highs, levels)
    best = int(np.argmin(divergences))
    return Range(float(lows[best]), float(highs[best]))


def _without_zeros(histogram: Histogram) -> Histogram:
    keep = (histogram.low != 0) | (histogram.high != 0)
    return Histogram(histogram.low[keep], histogram.high[keep], histogram.counts[keep])


def _thresholds(magnitudes: Histogram) -> Floats:
    """Candidates from the largest magnitude down to the median, widest first."""
    edges = np.unique(magnitudes.high)
    edges = edges[edges >= magnitudes.quantile(0.5)][::-1]
    return edges[:: max(1, edges.size // _THRESHOLDS)]


def _divergences(values: Histogram, lows: Floats, highs: Floats, levels: int) -> Floats:
    """KL(P ‖ Q) of each range."""
    share = np.linspace(0, 1, levels * _FINE + 1)
    edges = lows[:, None] + (highs - lows)[:, None] * share
    at = values.cumulative(edges)
    inside = np.diff(at, axis=1)
    clipped = inside.copy()
    clipped[:, 0] += at[:, 0]
    clipped[:, -1] += values.total - at[:, -1]
    p = clipped / values.total
    q = _quantized(inside, levels)
    q /= np.maximum(q.sum(axis=1, keepdims=True), _EPSILON)
    filled = p > 0
    ratio = np.where(filled, p, 1) / np.where(filled, np.maximum(q, _EPSILON), 1)
    return np.asarray((p * np.log(ratio)).sum(axis=1))


def _quantized(inside: Floats, levels: int) -> Floats:
    """Each level's mass spread evenly over those of its bins that hold anything."""
    groups = inside.reshape(inside.shape[0], levels, _FINE)
    filled = groups > 0
    mass = groups.sum(axis=2, keepdims=True) / np.maximum(filled.sum(axis=2, keepdims=True), 1)
    return np.where(filled, mass, 0.0).reshape(inside.shape)
