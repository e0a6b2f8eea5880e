"""Depthwise convolution with long contiguous loops, whatever the strides, dilations and rank.

The padded input is laid out as one plane per phase of the strides. Then every kernel element reads a plane
from some element on, for all windows at once, when the sums keep the planes' row length; what lies between
the rows of the output is computed and dropped.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from math import prod

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.interpreter.kernels.window import Axis


@dataclass(frozen=True)
class _Layout:
    """Arguments of the compiled loop that depend on sizes only."""

    rows: Array
    columns: Array
    size: int
    starts: Array
    picks: Array


def depthwise(x: Array, weight: Array, axes: tuple[Axis, ...], bias: Array | None) -> Array:
    """Convolve x [n, c, *d] with weight [c * m, 1, *k]: [n, c * m, *d_out]."""
    # numba takes time to import: only nets with depthwise convolutions pay for it
    from edgeq.targets.coreml.interpreter.kernels.depthwise_loop import depthwise_loop

    result = np.empty((len(x), len(weight), *(axis.output for axis in axes)), np.float32)
    layout = _layout(axes)
    depthwise_loop(
        np.ascontiguousarray(x).reshape(*x.shape[:2], -1, x.shape[-1]),
        layout.rows,
        layout.columns,
        layout.size,
        layout.starts,
        np.ascontiguousarray(weight.reshape(len(weight), -1)),
        np.zeros(len(weight), np.float32) if bias is None else np.ascontiguousarray(bias),
        layout.picks,
        result.reshape(*result.shape[:2], -1, result.shape[-1]),
    )
    return result


@lru_cache(maxsize=256)
def _layout(axes: tuple[Axis, ...]) -> _Layout:
    pitches, plane = _pitches(axes)
    rows, columns = _places(axes, pitches, plane)
    lines = [np.arange(axis.output) * pitch for axis, pitch in zip(axes[:-1], pitches[:-1], strict=True)]
    size = plane * prod(axis.stride for axis in axes)
    return _Layout(rows, columns, size, _starts(axes, pitches, plane), _sums(lines))


def _pitches(axes: Sequence[Axis]) -> tuple[list[int], int]:
    """Elements between neighbours along each axis of a phase's plane, and in the whole plane."""
    sizes = [-(-(axis.before + axis.size + axis.after) // axis.stride) for axis in axes]
    return [prod(sizes[place + 1 :]) for place in range(len(sizes))], prod(sizes)


def _places(axes: Sequence[Axis], pitches: Sequence[int], plane: int) -> tuple[Array, Array]:
    """Where the input's elements go: the sum of a term per row and a term per column."""
    terms = []
    phases = plane * prod(axis.stride for axis in axes)
    for axis, pitch in zip(axes, pitches, strict=True):
        phases //= axis.stride
        padded = np.arange(axis.size) + axis.before
        terms.append(padded % axis.stride * phases + padded // axis.stride * pitch)
    return _sums(terms[:-1]), terms[-1]


def _starts(axes: Sequence[Axis], pitches: Sequence[int], plane: int) -> Array:
    """First element that each kernel element reads, in the order of the weight's elements."""
    strides = [axis.stride for axis in axes]
    starts = []
    for index in itertools.product(*(range(axis.kernel) for axis in axes)):
        shifts = [i * axis.dilation for i, axis in zip(index, axes, strict=True)]
        phase = np.ravel_multi_index([s % stride for s, stride in zip(shifts, strides, strict=True)], strides)
        inside = sum(s // stride * pitch for s, stride, pitch in zip(shifts, strides, pitches, strict=True))
        starts.append(int(phase) * plane + inside)
    return np.array(starts, np.int64)


def _sums(terms: Sequence[Array]) -> Array:
    """All sums of one term from each array, the last one varying fastest."""
    nothing = np.zeros(1, np.int64)
    return reduce(lambda left, right: np.add.outer(left, right).reshape(-1), terms, nothing)
