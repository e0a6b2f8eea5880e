"""Geometry of sliding windows: what MIL's ``pad_type``, strides and dilations mean per spatial axis."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.errors import TargetError
from edgeq.targets.coreml.interpreter.call import Call


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a window op: sizes in elements, padding ``before`` and ``after`` the input."""

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    ceil: bool = False

    @property
    def extent(self) -> int:
        """Elements that the dilated kernel spans."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def output(self) -> int:
        """Number of windows (MIL's ``spatial_dimensions_out_shape``)."""
        room = self.size + self.before + self.after - self.extent
        if not self.ceil:
            return room // self.stride + 1
        count = (room + self.stride - 1) // self.stride + 1
        starts_outside = (count - 1) * self.stride >= self.size + self.before
        return count - 1 if starts_outside and self.before + self.after > 0 else count

    @property
    def overhang(self) -> int:
        """Elements behind the padding that the last window of ``ceil_mode`` reaches."""
        last = (self.output - 1) * self.stride + self.extent
        return max(0, last - self.size - self.before - self.after)

    def positions(self, offset: int) -> slice:
        """What kernel element ``offset`` sees in every window, in the padded input."""
        start = offset * self.dilation
        return slice(start, start + (self.output - 1) * self.stride + 1, self.stride)


def axes_of(call: Call, sizes: Sequence[int], kernel: Sequence[int]) -> tuple[Axis, ...]:
    """The spatial axes of a conv or pool op on an input with the spatial ``sizes``."""
    rank, kind = len(sizes), pad_type(call)
    return _axes(
        kind,
        tuple(custom_pads(call, rank)) if kind == "custom" else (),
        tuple(sizes),
        tuple(kernel),
        tuple(spatial(call, "strides", rank)),
        tuple(spatial(call, "dilations", rank)),
        bool(call.get("ceil_mode", False)),
    )


@lru_cache(maxsize=1024)
def _axes(
    kind: str,
    pads: tuple[tuple[int, int], ...],
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    ceil: bool,
) -> tuple[Axis, ...]:
    if kind == "valid":
        pads = ((0, 0),) * len(sizes)
    elif kind != "custom":
        totals = [
            max(0, (-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size)
            for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True)
        ]
        pads = tuple(split_padding(total, kind) for total in totals)
    return tuple(
        Axis(size, k, stride, dilation, *pad, ceil)
        for size, k, stride, dilation, pad in zip(sizes, kernel, strides, dilations, pads, strict=True)
    )


def spatial(call: Call, parameter: str, rank: int) -> list[int]:
    """A parameter with one integer per spatial axis; MIL's default for all of them is 1."""
    value = call.get(parameter)
    return [1] * rank if value is None else integers(value)


def integers(value: Any) -> list[int]:
    """A MIL integer vector as Python integers."""
    found: list[int] = np.asarray(value).reshape(-1).tolist()
    return found


def custom_pads(call: Call, rank: int) -> list[tuple[int, int]]:
    """The ``pad`` parameter as (before, after) per spatial axis; MIL's default is 0."""
    value = call.get("pad")
    flat = [0] * (2 * rank) if value is None else integers(value)
    return [(flat[2 * axis], flat[2 * axis + 1]) for axis in range(rank)]


def pad_type(call: Call) -> str:
    """MIL's ``pad_type`` in lower case; it is ``valid`` when it is left out."""
    found = str(call.get("pad_type", "valid")).lower()
    if found not in ("valid", "same", "same_lower", "custom"):
        raise TargetError(f"Core ML: {call.op_type} {call.name!r} has the unknown pad_type {found!r}.")
    return found


def split_padding(total: int, kind: str) -> tuple[int, int]:
    """``same`` puts the odd element behind the input, ``same_lower`` in front of it."""
    small, large = total // 2, total - total // 2
    return (large, small) if kind == "same_lower" else (small, large)


def padded(x: Array, axes: Sequence[Axis], value: float = 0.0) -> Array:
    """``x`` [n, c, *spatial] with the padding of all axes, the overhang of ``ceil_mode`` included."""
    if all(axis.before == axis.after == axis.overhang == 0 for axis in axes):
        return x
    after = [axis.after + axis.overhang for axis in axes]
    sizes = [axis.before + axis.size + extra for axis, extra in zip(axes, after, strict=True)]
    result = np.full((*x.shape[:2], *sizes), value, x.dtype)
    result[last(slice(axis.before, axis.before + axis.size) for axis in axes)] = x
    return result


def last(indices: Iterable[slice]) -> Any:
    """Index of the last axes."""
    return (..., *indices)


@lru_cache(maxsize=256)
def offsets(axes: tuple[Axis, ...]) -> tuple[tuple[tuple[int, ...], tuple[slice, ...]], ...]:
    """Every kernel element: its index, and what it sees in the padded input."""
    seen = [[axis.positions(offset) for offset in range(axis.kernel)] for axis in axes]
    kernel = itertools.product(*(range(axis.kernel) for axis in axes))
    return tuple(zip(kernel, itertools.product(*seen), strict=True))
