"""Kernels of MIL's operations that make tensors from shapes, indices and bounds."""

from __future__ import annotations

import numpy as np

from edgeq.calibration.types import Array
from edgeq.errors import TargetError
from edgeq.targets.coreml.interpreter.call import Call, Kernel
from edgeq.targets.coreml.interpreter.kernels.shape import integers

_ZERO = np.zeros((), np.float32)
_ZERO.flags.writeable = False


def _fill(call: Call) -> Array:
    value = np.asarray(call.get("value", _ZERO))
    return np.full(integers(call["shape"]), value, value.dtype)


def _fill_like(call: Call) -> Array:
    value = np.asarray(call.get("value", _ZERO))
    return np.full(call["ref_tensor"].shape, value, value.dtype)


def _range_1d(call: Call) -> Array:
    start = np.asarray(call["start"])
    return np.arange(start, call["end"], call["step"]).astype(start.dtype)


def _shape(call: Call) -> Array:
    return np.array(call["x"].shape, np.int32)


def _non_zero(call: Call) -> Array:
    return np.argwhere(call["x"]).astype(np.int32)


def _one_hot(call: Call) -> Array:
    """``one_hot``: on_value at the index, off_value elsewhere; a new dimension at ``axis``."""
    indices: Array = call["indices"]
    size, axis = int(call["one_hot_vector_size"]), int(call.get("axis", -1))
    if indices.size and (indices.min() < 0 or indices.max() >= size):
        raise TargetError(
            f"The operation {call.name!r} (one_hot) has indices from {indices.min()} to {indices.max()} "
            f"for vectors of {size}, and MIL leaves the result undefined."
        )
    on, off = (
        np.asarray(call.get(name, np.int32(default))) for name, default in (("on_value", 1), ("off_value", 0))
    )
    positions = np.arange(size).reshape((size,) + (1,) * (-1 - axis if axis < 0 else indices.ndim - axis))
    return np.where(np.expand_dims(indices, axis) == positions, on, off)


def _band_part(call: Call) -> Array:
    """``band_part``: zeros outside ``lower`` and ``upper`` diagonals; negative keeps all of that side."""
    x: Array = call["x"]
    lower, upper = int(call.get("lower", -1)), int(call.get("upper", -1))
    below = np.arange(x.shape[-2])[:, None] - np.arange(x.shape[-1])
    inside = np.ones(below.shape, bool)
    if lower >= 0:
        inside &= below <= lower
    if upper >= 0:
        inside &= -below <= upper
    return np.where(inside, x, np.zeros((), x.dtype))


KERNELS: dict[str, Kernel] = {
    "band_part": _band_part,
    "fill": _fill,
    "fill_like": _fill_like,
    "non_zero": _non_zero,
    "one_hot": _one_hot,
    "range_1d": _range_1d,
    "shape": _shape,
}
