"""Kernels of MIL's ``gather`` family."""

from __future__ import annotations

import math

import numpy as np

from edgeq.calibration.types import Array
from edgeq.errors import TargetError
from edgeq.targets.coreml.interpreter.call import Call, Kernel

# From here on negative indices are out of bounds, and what those give is undefined.
_ONLY_POSITIVE = 17


def check_bounds(call: Call, indices: Array, size: int) -> None:
    """Refuse indices whose result MIL leaves undefined."""
    low = 0 if call.opset >= _ONLY_POSITIVE else -size
    if indices.size and (indices.min() < low or indices.max() >= size):
        raise TargetError(
            f"The operation {call.name!r} ({call.op_type}) reads indices from {indices.min()} to "
            f"{indices.max()}, the dimension has {size} and iOS {call.opset} takes {low} to {size - 1}."
        )


def check_points(call: Call, indices: Array, shape: tuple[int, ...]) -> None:
    """:func:`check_bounds` for the last dimension of ``indices``, one coordinate each."""
    for axis in range(indices.shape[-1]):
        check_bounds(call, indices[..., axis], shape[axis])


def _gather(call: Call) -> Array:
    """``gather``: slices of x along ``axis``; the first ``batch_dims`` dimensions are shared."""
    x: Array = call["x"]
    indices: Array = call["indices"]
    axis, batch = int(call.get("axis", 0)) % x.ndim, int(call.get("batch_dims", 0))
    check_bounds(call, indices, x.shape[axis])
    if batch == 0:
        return np.take(x, indices, axis)
    count = math.prod(x.shape[:batch])
    flat_x, flat_indices = (a.reshape(count, *a.shape[batch:]) for a in (x, indices))
    parts = [np.take(a, i, axis - batch) for a, i in zip(flat_x, flat_indices, strict=True)]
    return np.stack(parts).reshape(*x.shape[:axis], *indices.shape[batch:], *x.shape[axis + 1 :])


def _gather_along_axis(call: Call) -> Array:
    x: Array = call["x"]
    axis = int(call.get("axis", 0))
    check_bounds(call, call["indices"], x.shape[axis])
    return np.take_along_axis(x, call["indices"], axis)


def _gather_nd(call: Call) -> Array:
    """``gather_nd``: the last dimension of ``indices`` holds coordinates after ``batch_dims``."""
    x: Array = call["x"]
    indices: Array = call["indices"]
    batch = int(call.get("batch_dims", 0))
    check_points(call, indices, x.shape[batch:])
    points = tuple(np.moveaxis(indices, -1, 0))
    if batch == 0:
        return np.asarray(x[points])
    free = (1,) * (indices.ndim - 1 - batch)
    shared = np.ix_(*(np.arange(size) for size in x.shape[:batch]))
    return np.asarray(x[tuple(grid.reshape(grid.shape + free) for grid in shared) + points])


KERNELS: dict[str, Kernel] = {
    "gather": _gather,
    "gather_along_axis": _gather_along_axis,
    "gather_nd": _gather_nd,
}
