"""How a linear layer reads its input: the rows of numbers that meet the rows of its weights.

Every linear layer is a matrix product of input rows [K] with weights [output channels, K]: K runs over the
kernel positions and the channels of the group, in the order in which the INT8 kernel adds them up.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgeq.compiler.plan_nodes import attribute
from edgeq.compiler.quantize.saturation import Floats


def kernel_order(node: ir.Node, rank: int) -> tuple[int, ...]:
    """Permutation of a weight's axes to [output channels, K in the order of the INT8 kernel].

    K is the last axis of matrices (a stack of them has its own rows), all axes but the first of kernels.
    """
    if node.op_type == "Conv":
        return (0, *range(2, rank), 1)
    if node.op_type == "ConvTranspose":
        return (1, *range(2, rank), 0)
    if node.op_type == "Gemm" and attribute(node, "transB", 0):
        return (0, 1)
    return (*range(rank - 2), rank - 1, rank - 2)


def is_depthwise(node: ir.Node, weights: Floats) -> bool:
    """Whether each output channel reads one channel of its own: such kernels widen before they add."""
    group = attribute(node, "group", 1)
    return node.op_type == "Conv" and weights.shape[1] == 1 and group == weights.shape[0] and group != 1


def groups(node: ir.Node) -> int:
    """Number of groups of a convolution, 1 for a matrix product."""
    found = attribute(node, "group", 1)
    return found if isinstance(found, int) else 1


def input_rows(
    node: ir.Node, kernel: tuple[int, ...], x: Floats, limit: int | None, random: np.random.Generator
) -> Floats:
    """Rows of ``x`` as the layer reads them: float32 [rows, groups, K].

    Args:
        node: a Conv, Gemm or MatMul with two-dimensional weights.
        kernel: spatial shape of a convolution's weights, () otherwise.
        x: the layer's input, [N, C, spatial...] or [..., K].
        limit: that many rows at most, drawn without replacement; None for all.
        random: draws them.
    """
    if node.op_type != "Conv":
        matrix = x.T if attribute(node, "transA", 0) else x.reshape(-1, x.shape[-1])
        chosen = _choose(len(matrix), limit, random)
        return np.ascontiguousarray(matrix[chosen][:, None, :], np.float32)
    windows = _windows(node, kernel, x)
    spatial = windows.shape[2 : 2 + len(kernel)]
    counts = (windows.shape[0], *spatial)
    index = np.unravel_index(_choose(int(np.prod(counts)), limit, random), counts)
    # Channels last, so that one index array per leading axis gives [rows, kernel..., C].
    picked = np.moveaxis(windows, 1, -1)[tuple(index)]
    split = picked.reshape(len(picked), *kernel, groups(node), -1)
    ordered = np.moveaxis(split, -2, 1)
    return np.ascontiguousarray(ordered.reshape(len(picked), groups(node), -1), np.float32)


def _choose(count: int, limit: int | None, random: np.random.Generator) -> npt.NDArray[np.int64]:
    if limit is None or count <= limit:
        return np.arange(count)
    return np.sort(random.choice(count, limit, replace=False))


def _windows(node: ir.Node, kernel: tuple[int, ...], x: Floats) -> Floats:
    """A view [N, C, output positions..., kernel...] of the padded input."""
    rank = len(kernel)
    strides, dilations = _ints(node, "strides", rank, 1), _ints(node, "dilations", rank, 1)
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = _pads(node, x.shape[2:], extents, strides)
    padded = np.pad(x, [(0, 0), (0, 0), *pads])
    axes = tuple(range(2, 2 + rank))
    view = np.lib.stride_tricks.sliding_window_view(padded, tuple(extents), axis=axes)  # type: ignore[call-overload]
    steps = [slice(None), slice(None), *(slice(None, None, s) for s in strides)]
    steps += [slice(None, None, d) for d in dilations]
    return np.asarray(view[tuple(steps)])


def _pads(
    node: ir.Node, sizes: tuple[int, ...], extents: list[int], strides: list[int]
) -> list[tuple[int, int]]:
    """Zeros before and after each spatial axis (formula of auto_pad: ONNX operator Conv)."""
    mode = attribute(node, "auto_pad", "NOTSET")
    if mode == "VALID":
        return [(0, 0)] * len(sizes)
    if mode == "NOTSET":
        flat = _ints(node, "pads", 2 * len(sizes), 0)
        return list(zip(flat[: len(sizes)], flat[len(sizes) :], strict=True))
    found = []
    for size, extent, stride in zip(sizes, extents, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        small, large = total // 2, total - total // 2
        found.append((small, large) if mode == "SAME_UPPER" else (large, small))
    return found


def _ints(node: ir.Node, name: str, count: int, default: int) -> list[int]:
    found = node.attributes.get(name)
    return [default] * count if found is None else [int(i) for i in found.as_ints()]
