"""Kernels of the MIL convolution ops: im2col and matrix products in float32, block by block of images."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.interpreter.call import Call, Kernel
from edgeq.targets.coreml.interpreter.kernels.depthwise import depthwise
from edgeq.targets.coreml.interpreter.kernels.product import products
from edgeq.targets.coreml.interpreter.kernels.window import (
    Axis,
    axes_of,
    custom_pads,
    integers,
    last,
    offsets,
    pad_type,
    padded,
    spatial,
    split_padding,
)

# Elements of one im2col block: it stays in the second-level cache between the copy and the product.
_BLOCK = 1 << 19
# Below this many columns per image, one product over all images beats one per image.
_FEW_COLUMNS = 32


def conv(call: Call) -> Array:
    """MIL ``conv``: x [n, c, *d], weight [o, c / groups, *k] → [n, o, *d_out]."""
    x, weight = call["x"], call["weight"]
    axes = axes_of(call, x.shape[2:], weight.shape[2:])
    groups = int(call.get("groups", 1))
    if groups > 1 and groups == x.shape[1]:
        return depthwise(x, weight, axes, call.get("bias"))
    return _add_bias(_convolve(x, weight, axes, groups), call.get("bias"))


def _convolve(x: Array, weight: Array, axes: tuple[Axis, ...], groups: int) -> Array:
    source = padded(x, axes)
    result = np.empty((x.shape[0], weight.shape[0], *(axis.output for axis in axes)), x.dtype)
    matrix = weight.reshape(groups, weight.shape[0] // groups, -1)
    if _is_pointwise(axes):
        _multiply(matrix, source, result, groups)
        return result
    per_image = matrix.shape[0] * matrix.shape[2] * prod(result.shape[2:])
    step = max(1, _BLOCK // max(1, per_image))
    for start in range(0, len(x), step):
        chosen = slice(start, start + step)
        _multiply(matrix, _columns(source[chosen], axes), result[chosen], groups)
    return result


def _is_pointwise(axes: tuple[Axis, ...]) -> bool:
    return all(axis.kernel == axis.stride == 1 for axis in axes)


def _columns(x: Array, axes: tuple[Axis, ...]) -> Array:
    """im2col: [n, c, *padded] → [n, c, *k, *d_out], the order of the weight's elements."""
    kernel, output = [axis.kernel for axis in axes], [axis.output for axis in axes]
    columns = np.empty((*x.shape[:2], *kernel, *output), x.dtype)
    for index, seen in offsets(axes):
        place: Any = (slice(None), slice(None), *index)
        columns[place] = x[last(seen)]
    return columns


def _multiply(matrix: Array, columns: Array, result: Array, groups: int) -> None:
    """Set result [n, o, *d] to matrix [groups, o / groups, k] @ columns [n, groups * k, *d]."""
    count, places = len(result), prod(result.shape[2:])
    source = columns.reshape(count, groups, matrix.shape[2], places)
    target = result.reshape(count, groups, matrix.shape[1], places)
    if places >= _FEW_COLUMNS or count == 1:
        products(matrix, source, target)
        return
    merged = source.transpose(1, 2, 0, 3).reshape(1, groups, matrix.shape[2], count * places)
    together = np.empty((1, groups, matrix.shape[1], count * places), result.dtype)
    products(matrix, merged, together, places)
    target[...] = together.reshape(groups, matrix.shape[1], count, places).transpose(2, 0, 1, 3)


def _add_bias(result: Array, bias: Array | None) -> Array:
    if bias is not None:
        result += bias.reshape(-1, *(1,) * (result.ndim - 2))
    return result


def conv_transpose(call: Call) -> Array:
    """MIL ``conv_transpose``: x [n, c, *d], weight [c, o / groups, *k] → [n, o, *d_out]."""
    x, weight = call["x"], call["weight"]
    groups = int(call.get("groups", 1))
    rank = x.ndim - 2
    strides, dilations = spatial(call, "strides", rank), spatial(call, "dilations", rank)
    full = [
        (size - 1) * stride + (k - 1) * dilation + 1
        for size, k, stride, dilation in zip(x.shape[2:], weight.shape[2:], strides, dilations, strict=True)
    ]
    result = _scatter(x, weight, groups, strides, dilations, full)
    return _add_bias(_cropped(call, result, x.shape[2:], strides), call.get("bias"))


def _scatter(
    x: Array,
    weight: Array,
    groups: int,
    strides: Sequence[int],
    dilations: Sequence[int],
    full: Sequence[int],
) -> Array:
    """The product of every input element with the kernel, added up where they overlap."""
    count, channels, *sizes = x.shape
    per_group = weight.shape[1]
    matrix = weight.reshape(groups, channels // groups, -1).transpose(0, 2, 1)
    product = np.matmul(matrix, x.reshape(count, groups, channels // groups, -1))
    product = product.reshape(count, groups * per_group, *weight.shape[2:], *sizes)
    result = np.zeros((count, groups * per_group, *full), x.dtype)
    for index in np.ndindex(*weight.shape[2:]):
        places = tuple(
            slice(i * dilation, i * dilation + (size - 1) * stride + 1, stride)
            for i, size, stride, dilation in zip(index, sizes, strides, dilations, strict=True)
        )
        result[last(places)] += product[(slice(None), slice(None), *index)]
    return result


def _cropped(call: Call, full: Array, sizes: Sequence[int], strides: Sequence[int]) -> Array:
    """Cut the padding off; zeros where ``output_shape`` or ``same`` wants more than the kernel reaches."""
    before, wanted = _transposed_window(call, full.shape[2:], sizes, strides)
    kept = full[last(slice(b, b + w) for b, w in zip(before, wanted, strict=True))]
    missing = [(0, w - have) for w, have in zip(wanted, kept.shape[2:], strict=True)]
    if not any(after for _, after in missing):
        return np.ascontiguousarray(kept)
    return np.pad(kept, [(0, 0), (0, 0), *missing])


def _transposed_window(
    call: Call, full: Sequence[int], sizes: Sequence[int], strides: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Where the output starts in the full product, and how long it is, per spatial axis."""
    kind, given = pad_type(call), call.get("output_shape")
    pads = custom_pads(call, len(full)) if kind == "custom" else [(0, 0)] * len(full)
    if given is not None:
        wanted = integers(given)[2:]
    elif kind in ("same", "same_lower"):
        wanted = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    else:
        wanted = [length - sum(pad) for length, pad in zip(full, pads, strict=True)]
    if kind in ("same", "same_lower"):
        spare = [max(0, length - want) for length, want in zip(full, wanted, strict=True)]
        pads = [split_padding(total, kind) for total in spare]
    return [before for before, _ in pads], wanted


KERNELS: dict[str, Kernel] = {"conv": conv, "conv_transpose": conv_transpose}
