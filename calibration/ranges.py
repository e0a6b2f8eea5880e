"""From a sketch to a quantization range: ``minmax``, ``percentile``, ``entropy``, ``mse`` and ``auto``.

All methods read the same sketch, so choosing another one costs no new pass over the data. Every range
contains 0: zeros (padding, ReLU) are exact after quantization.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from edgeq.calibration.affine import Range
from edgeq.calibration.histogram import Histogram
from edgeq.calibration.ranges_entropy import entropy_range
from edgeq.calibration.ranges_mse import ExpectedError, mse_range
from edgeq.calibration.sketch import Sketch
from edgeq.errors import DataError, UsageError

Method = Literal["auto", "minmax", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)
DEFAULT_PERCENTILE = 99.999
_NEARLY_AS_GOOD = 2.0  # of the expected squared error: 3 dB

__all__ = ["DEFAULT_PERCENTILE", "METHODS", "Method", "Range", "choose_range"]


def choose_range(
    sketch: Sketch,
    method: Method,
    *,
    bits: int = 8,
    symmetric: bool = False,
    percentile: float = DEFAULT_PERCENTILE,
    tensor: str = "",
) -> Range:
    """The range to quantize a tensor with, from its values' distribution.

    Args:
        sketch: what calibration saw of the tensor.
        method: ``minmax`` covers all values. ``percentile`` covers ``percentile`` percent of them.
            ``entropy`` minimises the Kullback-Leibler divergence between the distributions before and after
            quantizing. ``mse`` minimises the expected squared error. ``auto``, the product's default, is
            ``percentile`` where that is nearly as good as ``mse``, else ``mse``.
        bits: of the quantized type.
        symmetric: the range is -T to T.
        percentile: over 50, up to 100.
        tensor: its name, for messages.

    Raises:
        DataError: the sketch is empty or has seen NaN or infinite values.
        UsageError: unknown method, or a percentile or bit width out of bounds.
    """
    _check_request(method, bits, percentile)
    _check_sketch(sketch, tensor)
    histogram = sketch.histogram()
    if symmetric:
        histogram = histogram.magnitudes()
    pick: dict[str, Callable[[], Range]] = {
        "minmax": lambda: minmax_range(histogram),
        "percentile": lambda: percentile_range(histogram, percentile),
        "entropy": lambda: entropy_range(histogram, bits, symmetric),
        "mse": lambda: mse_range(histogram, bits, symmetric),
        "auto": lambda: auto_range(histogram, bits, symmetric, percentile),
    }
    chosen = pick[method]()
    return Range(-chosen.high, chosen.high) if symmetric else chosen


def minmax_range(histogram: Histogram) -> Range:
    """From the smallest to the largest value."""
    return Range(min(float(histogram.low[0]), 0.0), max(float(histogram.high[-1]), 0.0))


def percentile_range(histogram: Histogram, percentile: float) -> Range:
    """The range that holds ``percentile`` percent of the values.

    Both tails lose the same number of values. A tensor without values on one side of 0 (after a ReLU) keeps
    0 as that bound, and loses only at the other end.
    """
    cut = 1 - percentile / 100
    if histogram.low[0] >= 0:
        return Range(0.0, max(histogram.quantile(1 - cut), 0.0))
    if histogram.high[-1] <= 0:
        return Range(min(histogram.quantile(cut), 0.0), 0.0)
    return Range(min(histogram.quantile(cut / 2), 0.0), max(histogram.quantile(1 - cut / 2), 0.0))


def auto_range(histogram: Histogram, bits: int, symmetric: bool, percentile: float) -> Range:
    """The percentile range, unless it loses much more than the best range can.

    A percentile did best on real networks (``docs/benchmarks.md``), but it knows nothing of magnitudes: rare
    values that carry most of the signal would be cut off, and 4 bits want a narrower range than 8.
    """
    by_share = percentile_range(histogram, percentile)
    best = mse_range(histogram, bits, symmetric)
    error = ExpectedError(histogram, bits, symmetric)
    return by_share if error.of(by_share) <= _NEARLY_AS_GOOD * error.of(best) else best


def _check_request(method: str, bits: int, percentile: float) -> None:
    if method not in METHODS:
        raise UsageError(f"Unknown range method {method!r}.", fix=f"Known methods: {', '.join(METHODS)}.")
    if not 50 < percentile <= 100:
        raise UsageError(
            f"A percentile of {percentile:g} is not possible.", fix="Give one over 50, up to 100."
        )
    if not 2 <= bits <= 16:
        raise UsageError(f"Cannot quantize to {bits} bits.", fix="Give 2 to 16.")


def _check_sketch(sketch: Sketch, tensor: str) -> None:
    name = f"Tensor {tensor!r}" if tensor else "A tensor"
    if sketch.non_finite:
        raise DataError(
            f"{name} had {sketch.nan} NaN and {sketch.inf} infinite values during calibration.",
            fix="Check the calibration data and its preprocessing, or leave the tensor in float.",
        )
    if sketch.count == 0:
        raise DataError(
            f"{name} had no values during calibration.",
            fix="Give calibration data that reaches it, or leave the tensor in float.",
        )
