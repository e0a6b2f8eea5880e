"""The range with the smallest expected squared quantization error, read from a histogram.

The error has two parts. Clipping: values beyond a bound lose their distance to it, squared. Rounding: with
step s, values below s/2 become 0 and lose all they have; all others lose s²/12 on average (Bennett, "Spectra
of Quantized Signals", 1948). Both parts come from cumulative moments of the histogram, so that all pairs of
bounds are judged at once.
"""

from __future__ import annotations

import numpy as np

from edgeq.calibration.affine import Range
from edgeq.calibration.histogram import Floats, Histogram

_COARSE = 96  # bounds tried per side; a second round tries all buckets around the best
_SMALLEST_SHARE = 2.0**-20  # bounds below this share of the largest magnitude are not tried


def mse_range(histogram: Histogram, bits: int, symmetric: bool) -> Range:
    """The best range. Symmetric: ``histogram`` holds magnitudes, and only ``high`` counts."""
    error = ExpectedError(histogram, bits, symmetric)
    lows, highs = (
        _bounds(-histogram.low[histogram.low < 0][::-1]),
        _bounds(histogram.high[histogram.high > 0]),
    )
    i, j = error.best(-_thin(lows), _thin(highs))
    low = -_thin(lows)[i]
    high = _thin(highs)[j]
    lows, highs = _around(lows, -low), _around(highs, high)
    i, j = error.best(-lows, highs)
    return Range(min(float(-lows[i]), 0.0), float(highs[j]))


class ExpectedError:
    """Sum of squared errors of all values, as a function of the bounds."""

    def __init__(self, histogram: Histogram, bits: int, symmetric: bool) -> None:
        self.steps = 2 * (2 ** (bits - 1) - 1) if symmetric else 2**bits - 1
        self.symmetric = symmetric
        self.upper = _Clipping(histogram.low, histogram.high, histogram.counts)
        self.lower = _Clipping(-histogram.high[::-1], -histogram.low[::-1], histogram.counts[::-1])
        size = histogram.magnitudes()
        self.edges = np.append(0.0, size.high)
        self.number = np.append(0.0, np.cumsum(size.counts))
        self.power = np.append(0.0, np.cumsum(size.counts * _mean_square(size.low, size.high)))

    def __call__(self, low: Floats, high: Floats) -> Floats:
        """The error for all pairs [low, high] (low [m] ≤ 0, high [n] ≥ 0 → [m, n])."""
        clipping = self.upper(high)[None, :] + self.lower(-low)[:, None]
        width = 2 * high[None, :] + 0 * low[:, None] if self.symmetric else high[None, :] - low[:, None]
        return np.asarray(clipping + self._rounding(width / self.steps))

    def of(self, span: Range) -> float:
        """The error with one range."""
        return float(self(np.array([span.low]), np.array([span.high]))[0, 0])

    def best(self, low: Floats, high: Floats) -> tuple[int, int]:
        """The indices of the pair with the smallest error; of equals, the widest."""
        errors = self(low, high)
        widest_first = errors[::-1, ::-1]
        i, j = np.unravel_index(int(np.argmin(widest_first)), errors.shape)
        return errors.shape[0] - 1 - int(i), errors.shape[1] - 1 - int(j)

    def _rounding(self, step: Floats) -> Floats:
        lost = np.interp(step / 2, self.edges, self.power)
        rest = self.number[-1] - np.interp(step / 2, self.edges, self.number)
        return np.asarray(lost + rest * step**2 / 12)


class _Clipping:
    """Sum over all values x > t of (x - t)², for t at upper bucket edges."""

    def __init__(self, low: Floats, high: Floats, counts: Floats) -> None:
        self.high = high
        self.moments = [
            np.append(np.cumsum((counts * m)[::-1])[::-1], 0.0)
            for m in (np.ones_like(low), (low + high) / 2, _mean_square(low, high))
        ]

    def __call__(self, bound: Floats) -> Floats:
        first = np.searchsorted(self.high, bound, side="right")
        m0, m1, m2 = (m[first] for m in self.moments)
        lost: Floats = np.maximum(m2 - 2 * bound * m1 + bound**2 * m0, 0.0)
        return lost


def _mean_square(low: Floats, high: Floats) -> Floats:
    mean: Floats = (low * low + low * high + high * high) / 3
    return mean


def _bounds(edges: Floats) -> Floats:
    """Candidates from ascending positive bucket edges: those that are not far too small. At least 0."""
    if edges.size == 0:
        return np.zeros(1)
    large: Floats = edges[edges >= edges[-1] * _SMALLEST_SHARE]
    return large


def _thin(bounds: Floats) -> Floats:
    """About ``_COARSE`` of the candidates, with the largest."""
    return bounds[::-1][:: max(1, bounds.size // _COARSE)][::-1]


def _around(bounds: Floats, best: float) -> Floats:
    """The candidates near ``best`` that thinning left out."""
    stride = max(1, bounds.size // _COARSE)
    at = int(np.searchsorted(bounds, best))
    return bounds[max(0, at - stride) : at + stride + 1]
