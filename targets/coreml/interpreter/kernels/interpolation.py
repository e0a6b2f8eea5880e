"""Linear interpolation along one axis."""

from __future__ import annotations

import numpy as np

from edgeq.calibration.types import Array


def lerp(x: Array, axis: int, points: Array) -> Array:
    """``x`` at fractional ``points`` of one axis, which lie inside it."""
    low = np.floor(points).astype(np.intp)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    shape = [1] * x.ndim
    shape[axis] = -1
    weight = (points - low).astype(np.float32).reshape(shape)
    first, second = np.take(x, low, axis=axis), np.take(x, high, axis=axis)
    return np.asarray(first * (1 - weight) + second * weight)
