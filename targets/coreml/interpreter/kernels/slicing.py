"""Kernels of MIL's slices and paddings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from edgeq.calibration.types import Array
from edgeq.errors import TargetError
from edgeq.targets.coreml.interpreter.call import Call, Kernel
from edgeq.targets.coreml.interpreter.kernels.shape import integers

# MIL's modes of pad → numpy's.
_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


def _mask(call: Call, parameter: str, rank: int) -> tuple[int, ...]:
    mask = call.get(parameter)
    return (0,) * rank if mask is None else integers(mask)


def _index(call: Call) -> tuple[Any, ...]:
    """``slice_by_index``'s parameters as numpy index; negative positions count from the end."""
    rank = call["x"].ndim
    begins, ends, stride = integers(call["begin"]), integers(call["end"]), call.get("stride")
    strides = (1,) * rank if stride is None else integers(stride)
    masks = [_mask(call, name, rank) for name in ("begin_mask", "end_mask", "squeeze_mask")]
    index: list[Any] = []
    for begin, end, step, first, last, single in zip(begins, ends, strides, *masks, strict=True):
        if single:
            index.append(0 if first else begin)
        else:
            index.append(slice(None if first else begin, None if last else end, step))
    return tuple(index)


def _slice_by_index(call: Call) -> Array:
    return np.asarray(call["x"][_index(call)])


def _slice_update(call: Call) -> Array:
    """``slice_update``: x with a slice of it replaced."""
    out: Array = call["x"].copy()
    out[_index(call)] = call["update"]
    return out


def _slice_by_size(call: Call) -> Array:
    """``slice_by_size``: ``size`` elements from ``begin`` on, -1 for all that follow."""
    x: Array = call["x"]
    index = []
    for begin, size, length in zip(integers(call["begin"]), integers(call["size"]), x.shape, strict=True):
        start = begin + length if begin < 0 else begin
        index.append(slice(start, length if size == -1 else start + size))
    return x[tuple(index)]


def _pad(call: Call) -> Array:
    """``pad``: pairs for the last dimensions."""
    x: Array = call["x"]
    pairs = np.reshape(call["pad"], (-1, 2)).tolist()
    widths = [[0, 0]] * (x.ndim - len(pairs)) + pairs
    mode = str(call.get("mode", "constant"))
    if mode != "constant":
        _check_widths(call, widths, x.shape, mode)
        return np.pad(x, widths, _PAD_MODES[mode])  # type: ignore[call-overload, no-any-return]
    shape = [size + before + after for size, (before, after) in zip(x.shape, widths, strict=True)]
    out = np.full(shape, call.get("constant_val", 0), x.dtype)
    inside = (slice(before, before + size) for size, (before, _) in zip(x.shape, widths, strict=True))
    out[tuple(inside)] = x
    return out


def _check_widths(call: Call, widths: list[list[int]], shape: tuple[int, ...], mode: str) -> None:
    """MIL reflects each element once at most, and replicates as many as there are."""
    for width, size in zip(widths, shape, strict=True):
        if max(width) > (size - 1 if mode == "reflect" else size):
            raise TargetError(
                f"The operation {call.name!r} (pad) pads a dimension of {size} by {max(width)} in the mode "
                f"{mode!r}, which MIL does not allow."
            )


def _sliding_windows(call: Call) -> Array:
    """``sliding_windows``: a new dimension of the window's elements after ``axis``."""
    x: Array = call["x"]
    axis = int(call["axis"]) % x.ndim
    windows = sliding_window_view(x, int(call["size"]), axis)
    steps = (slice(None),) * axis + (slice(None, None, int(call.get("stride", 1))),)
    return np.moveaxis(windows[steps], -1, axis + 1)


KERNELS: dict[str, Kernel] = {
    "pad": _pad,
    "slice_by_index": _slice_by_index,
    "slice_by_size": _slice_by_size,
    "slice_update": _slice_update,
    "sliding_windows": _sliding_windows,
}
