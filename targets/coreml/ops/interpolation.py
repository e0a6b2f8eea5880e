"""How ONNX Resize samples one axis: source coordinates, nearest positions, interpolation matrices.

Formulas: the text of the ONNX operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from edgeq.calibration.types import Array


@dataclass(frozen=True)
class Sampling:
    """One axis: ``size`` elements become ``output``.

    ``scale`` is what the model gives, or output / size where it gives sizes. ``start`` and ``end`` are the
    region of interest in fractions of the axis.
    """

    size: int
    output: int
    scale: float
    start: float = 0.0
    end: float = 1.0


_SYMMETRIC_ERROR = 1e-4

# x: the output positions, in the dtype to compute in; scale: in that dtype as well
_Coordinates = Callable[[Sampling, Array, Any], Array]


def _half_pixel(_: Sampling, x: Array, scale: Any) -> Array:
    source: Array = (x + 0.5) / scale - 0.5
    return source


def _half_pixel_symmetric(axis: Sampling, x: Array, scale: Any) -> Array:
    dtype = x.dtype.type
    adjustment = dtype(axis.output) / (scale * dtype(axis.size))
    offset = dtype(axis.size) / dtype(2) * (dtype(1) - adjustment)
    # ONNX Runtime computes this sum, and only this one, in double precision
    return (np.float64(offset) + (x.astype(np.float64) + 0.5) / np.float64(scale) - 0.5).astype(dtype)


def _pytorch_half_pixel(axis: Sampling, x: Array, scale: Any) -> Array:
    return _half_pixel(axis, x, scale) if axis.output > 1 else np.zeros_like(x)


def _tf_half_pixel(_: Sampling, x: Array, scale: Any) -> Array:
    source: Array = (x + 0.5) / scale
    return source


def _asymmetric(_: Sampling, x: Array, scale: Any) -> Array:
    source: Array = x / scale
    return source


def _align_corners(axis: Sampling, x: Array, _: Any) -> Array:
    if axis.output == 1:
        return np.zeros_like(x)
    return x * (axis.size - 1) / (axis.output - 1)


def _tf_crop_and_resize(axis: Sampling, x: Array, _: Any) -> Array:
    dtype, last = x.dtype.type, axis.size - 1
    start, end = dtype(axis.start), dtype(axis.end)
    if axis.output == 1:
        return np.full_like(x, 0.5 * (start + end) * last)
    source: Array = start * last + (x * (end - start) * last) / (axis.output - 1)
    return source


COORDINATES: Mapping[str, _Coordinates] = MappingProxyType(
    {
        "align_corners": _align_corners,
        "asymmetric": _asymmetric,
        "half_pixel": _half_pixel,
        "half_pixel_symmetric": _half_pixel_symmetric,
        "pytorch_half_pixel": _pytorch_half_pixel,
        "tf_crop_and_resize": _tf_crop_and_resize,
        "tf_half_pixel_for_nn": _tf_half_pixel,
    }
)

NEAREST: Mapping[str, Callable[[Array], Array]] = MappingProxyType(
    {
        "ceil": np.ceil,
        "floor": np.floor,
        "round_prefer_ceil": lambda x: np.floor(x + 0.5),
        "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    }
)


def coordinates(axis: Sampling, mode: str, dtype: Any = np.float32) -> Array:
    """Source coordinate of each output element, not clamped to the axis; float32 as in ONNX Runtime."""
    return COORDINATES[mode](axis, np.arange(axis.output, dtype=dtype), dtype(axis.scale))


def nearest(axis: Sampling, mode: str, rounding: str) -> Array | None:
    """Position that each output element copies, int32; None where rounding errors decide it."""
    candidates = [coordinates(axis, mode, np.float32), coordinates(axis, mode, np.float64)]
    if mode == "half_pixel_symmetric":  # a sum of three roundings
        candidates += [candidates[1] - _SYMMETRIC_ERROR, candidates[1] + _SYMMETRIC_ERROR]
    positions = [np.clip(NEAREST[rounding](source), 0, axis.size - 1) for source in candidates]
    same = all(np.array_equal(positions[0], other) for other in positions[1:])
    return positions[0].astype(np.int32) if same else None


def outside(source: Array, size: int) -> Array:
    """Which elements tf_crop_and_resize does not take from the input."""
    return (source < 0) | (source > size - 1)


@dataclass(frozen=True)
class Kernel:
    """Weight over distance, zero from ``radius`` on."""

    weight: Callable[[Array], Array]
    radius: int


def linear() -> Kernel:
    """The hat function."""
    return Kernel(lambda x: np.clip(1 - np.abs(x), 0, None), 1)


def cubic(a: float) -> Kernel:
    """Cubic convolution (Keys, 1981, equation 4) with the coefficient ``a``."""

    def weight(x: Array) -> Array:
        x = np.abs(x)
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        return np.where(x <= 1, near, np.where(x < 2, far, 0))

    return Kernel(weight, 2)


def matrix(
    source: Array, size: int, kernel: Kernel, *, stretch: float = 1.0, exclude_outside: bool = False
) -> Array:
    """Interpolation at ``source`` as a matrix [output, size], float32.

    ``stretch`` widens the kernel (antialiasing). Taps outside the axis stand for its first or last element,
    or do not count at all (``exclude_outside``).
    """
    source = source.astype(np.float64)
    reach = math.ceil(kernel.radius * stretch)
    taps = np.floor(source)[:, None] + np.arange(1 - reach, reach + 1)
    weights = kernel.weight((taps - source[:, None]) / stretch)
    if exclude_outside:
        weights = np.where((taps < 0) | (taps >= size), 0, weights)
    total = weights.sum(axis=1, keepdims=True)
    weights = weights / np.where(total == 0, 1, total)
    result = np.zeros((len(source), size), np.float64)
    rows = np.arange(len(source))[:, None]
    np.add.at(result, (rows, np.clip(taps, 0, size - 1).astype(np.int64)), weights)
    return result.astype(np.float32)


def mil_coordinates(sampling_mode: str, size: int, output: int) -> Array | None:
    """Where MIL ``resize_bilinear`` samples (its documentation), clamped; None where that is 0/0."""
    x = np.arange(output, dtype=np.float64)
    if sampling_mode == "UNALIGN_CORNERS":
        spacing = size / output
        return np.clip(x * spacing + 0.5 * spacing - 0.5, 0, size - 1)
    if output == 1:
        return None
    last = size - 1 if sampling_mode == "STRICT_ALIGN_CORNERS" else size - size / output
    return np.clip(x * (last / (output - 1)), 0, size - 1)
