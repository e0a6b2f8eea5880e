"""Rules about INT4 weights and about weights with scales for blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from edgeq.targets.tensorrt.capabilities import BLOCK_SIZES
from edgeq.targets.tensorrt.lint.graph import DEQUANTIZE, MATRIX, Graph, Problem, Quantizer, integer, rank

_BLOCKS = "Quantize the weights in blocks of 64 or 128 along K."
_INT8 = "Take INT8 weights per output channel with INT8 activations, or leave the activations in float."


@dataclass(frozen=True)
class Stored:
    """Constant weights of a MatMul or Gemm: the op, which input, how they are quantized."""

    node: ir.Node
    index: int
    quantizer: Quantizer
    activations: Quantizer | None

    @property
    def int4(self) -> bool:
        return self.quantizer.codes == ir.DataType.INT4

    @property
    def in_blocks(self) -> bool:
        """Whether there are several blocks along the axis; one alone is the same as scales per channel."""
        return bool(self.quantizer.block) and (blocks(self.quantizer) or 2) > 1


def int4_whole(graph: Graph) -> Iterator[Problem]:
    """INT4 weights with one scale per channel or tensor, or one block."""
    for stored in _stored(graph):
        if stored.int4 and not stored.in_blocks and stored.activations is None:
            yield Problem(
                stored.node,
                "its INT4 weights have no blocks, so a kernel of its own unpacks them for a float product",
                _BLOCKS,
            )


def int8_blocks(graph: Graph) -> Iterator[Problem]:
    """INT8 or FP8 weights in blocks without quantized activations."""
    for stored in _stored(graph):
        eight = stored.quantizer.codes in (ir.DataType.INT8, ir.DataType.FLOAT8E4M3FN)
        if eight and stored.in_blocks and stored.activations is None:
            yield Problem(
                stored.node,
                "its 8-bit weights have blocks, so a kernel of its own unpacks them for a float product",
                "Give 8-bit weights one scale per output channel; blocks are for INT4.",
            )


def odd_columns(graph: Graph) -> Iterator[Problem]:
    """INT4 weights for an odd number of output channels and more than one row."""
    for stored in _stored(graph):
        columns = _columns(stored)
        if not stored.int4 or not stored.in_blocks or stored.activations is not None or columns is None:
            continue
        if columns % 2 and not _one_row(stored):
            yield Problem(
                stored.node,
                f"it has {columns} output channels: with an odd number a kernel of its own unpacks the INT4",
                "Pad the weights to an even number of output channels, or leave this op in float.",
            )


def block_activations(graph: Graph) -> Iterator[Problem]:
    """Weights in blocks and quantized activations, where the build fails."""
    for stored in _stored(graph):
        if stored.activations is not None and stored.in_blocks and not _plain_product(stored):
            yield Problem(stored.node, "its weights have blocks and its activations are quantized", _INT8)


def block_activations_plain(graph: Graph) -> Iterator[Problem]:
    """The same for one matrix product, which is built with the scales of all blocks in a row."""
    for stored in _stored(graph):
        if stored.activations is not None and stored.in_blocks and _plain_product(stored):
            yield Problem(
                stored.node,
                "its weights have blocks and its activations are quantized: the engine multiplies the result "
                "by scales of other channels",
                _INT8,
            )


def int4_tensor(graph: Graph) -> Iterator[Problem]:
    """INT4 weights with one scale and quantized activations."""
    for stored in _stored(graph):
        if stored.activations is not None and stored.int4 and stored.quantizer.per_tensor:
            yield Problem(
                stored.node, "its INT4 weights have one scale and its activations are quantized", _INT8
            )


def int4_left(graph: Graph) -> Iterator[Problem]:
    """INT4 weights in blocks as the left matrix."""
    for stored in _stored(graph):
        if stored.int4 and stored.in_blocks and stored.index == 0 and stored.activations is None:
            yield Problem(
                stored.node,
                "its INT4 weights are the left matrix, and the compiler crashes",
                "Transpose the product, so that the weights are on the right.",
            )


def int4_convolution(graph: Graph) -> Iterator[Problem]:
    """INT4 weights of a Conv whose activations are float."""
    for node in graph.computing("Conv"):
        weights = graph.operand(node, 1).quantizer
        if (
            weights is None
            or weights.codes != ir.DataType.INT4
            or graph.operand(node, 0).quantizer is not None
        ):
            continue
        yield Problem(
            node, "there is no Conv with INT4 weights", "Quantize it to INT8, or leave it in float."
        )


def uneven_blocks(graph: Graph) -> Iterator[Problem]:
    """Blocks that do not divide the axis, and whose number does not either."""
    for quantizer, size, count in _uneven(graph):
        if size % count:
            yield Problem(
                quantizer.node,
                f"blocks of {quantizer.block} do not divide the {size} values along axis {quantizer.axis}",
                _dividing(size),
            )


def stretched_blocks(graph: Graph) -> Iterator[Problem]:
    """Blocks that do not divide the axis, but whose number does: they are taken as shorter ones."""
    for quantizer, size, count in _uneven(graph):
        if size % count == 0:
            yield Problem(
                quantizer.node,
                f"blocks of {quantizer.block} do not divide the {size} values along axis {quantizer.axis}, "
                f"and are taken as blocks of {size // count}",
                _dividing(size),
            )


def block_axis(graph: Graph) -> Iterator[Problem]:
    """Blocks along an axis before the last two."""
    for quantizer in _blocked(graph):
        dims = rank(quantizer.source)
        if dims is not None and quantizer.axis is not None and quantizer.axis % dims < dims - 2:
            yield Problem(
                quantizer.node,
                f"its blocks lie along axis {quantizer.axis} of {dims}; only the last two are allowed",
                _BLOCKS,
            )


def block_of_one(graph: Graph) -> Iterator[Problem]:
    """Blocks of one value."""
    for quantizer in _blocked(graph):
        if quantizer.block == 1:
            yield Problem(quantizer.node, "its blocks hold one value each", _BLOCKS)


def block_size(graph: Graph) -> Iterator[Problem]:
    """INT4 blocks of a size that the documentation does not name."""
    for stored in _stored(graph):
        size = stored.quantizer.block
        if stored.int4 and stored.in_blocks and size not in (1, *BLOCK_SIZES):
            yield Problem(
                stored.quantizer.node,
                f"its blocks hold {size} values; what TensorRT documents are 64 and 128",
                _BLOCKS,
            )


def blocks(quantizer: Quantizer) -> int | None:
    """Number of blocks along the axis."""
    return None if quantizer.scale is None else _size(quantizer.scale.shape, quantizer.axis)


def _size(shape: Sequence[object] | None, axis: int | None) -> int | None:
    """Length of an axis where it is there and known."""
    if shape is None or axis is None or not -len(shape) <= axis < len(shape):
        return None
    size = shape[axis]
    return size if isinstance(size, int) else None


def _stored(graph: Graph) -> Iterator[Stored]:
    for node in graph.computing(*MATRIX):
        for index in (0, 1):
            side, other = graph.operand(node, index), graph.operand(node, 1 - index)
            if side.constant and side.quantizer is not None:
                yield Stored(node, index, side.quantizer, other.quantizer)


def _blocked(graph: Graph) -> Iterator[Quantizer]:
    for quantizer in graph.quantizers.values():
        if quantizer.block and quantizer.node.op_type == DEQUANTIZE:
            yield quantizer


def _uneven(graph: Graph) -> Iterator[tuple[Quantizer, int, int]]:
    for quantizer in _blocked(graph):
        shape, count = quantizer.source.shape, blocks(quantizer)
        size = _size(None if shape is None else list(shape), quantizer.axis)
        if size is not None and count and count > 1 and size % quantizer.block:
            yield quantizer, size, count


def _dividing(size: int) -> str:
    fitting = [block for block in BLOCK_SIZES if size % block == 0]
    if not fitting:
        return "Leave the op in float, or quantize its weights to INT8 per output channel."
    return f"Take blocks of {' or '.join(str(block) for block in fitting[-2:])}."


def _columns(stored: Stored) -> int | None:
    """Output channels of the weights."""
    shape = stored.quantizer.source.shape
    if shape is None or len(shape) < 2 or stored.index == 0:
        return None
    swapped = stored.node.op_type == "Gemm" and integer(stored.node, "transB", 0)
    size = shape[-2 if swapped else -1]
    return size if isinstance(size, int) else None


def _one_row(stored: Stored) -> bool:
    """Whether the other side is known to be a single row."""
    other = stored.node.inputs[1 - stored.index]
    shape = None if other is None else other.shape
    sizes = [] if shape is None else list(shape)[:-1]
    return bool(sizes) and all(isinstance(size, int) for size in sizes) and prod(sizes) == 1


def _plain_product(stored: Stored) -> bool:
    """One matrix times one matrix that is not transposed: the shape that the compiler lets through."""
    other = stored.node.inputs[1 - stored.index]
    return rank(other) == 2 and rank(stored.quantizer.source) == 2 and not integer(stored.node, "transB", 0)
