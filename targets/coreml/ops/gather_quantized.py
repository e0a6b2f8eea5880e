"""com.microsoft.GatherBlockQuantized: rows of a table that stays in blocks of 4 or 8 bits in the package."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.indexing import indices_along
from edgeq.targets.coreml.ops.quantized_constants import Codes, constexpr, fitted, unpacked
from edgeq.targets.coreml.toolkit import builder

_TABLES = (ir.DataType.UINT8, ir.DataType.UINT4, ir.DataType.INT4)


def gather_block_quantized(node: OnnxNode) -> Var:
    """GatherBlockQuantized: Gather along ``gather_axis`` of a table in blocks along its last axis.

    An index outside of the table gives zeros in ONNX Runtime; in Core ML, as in ONNX's Gather, it is no
    valid input.
    """
    node.require_dtype(_TABLES, 0)
    rank = node.rank(0)
    axis = node.attribute("gather_axis", 0) % rank
    if node.attribute("quantize_axis", 1) % rank != rank - 1 or axis == rank - 1:
        node.refuse("its blocks are not along the last axis of rows", "Quantize along the last axis.")
    codes, size = _table(node, rank)
    table = constexpr(node, codes)
    rows = builder().gather(x=table, indices=indices_along(node, table, axis), axis=axis)
    return rows if codes.data.shape[-1] == size else _cut(rows, size)


def _table(node: OnnxNode, rank: int) -> tuple[Codes, int]:
    """The table and the length of its rows, which are longer where no equal blocks fit."""
    bits, block = node.attribute("bits", 4), node.attribute("block_size", 128)
    if bits not in (4, 8) or block < 1:
        node.refuse(f"a table of {bits} bits in blocks of {block} has no form in Core ML")
    stored, scale = node.known(0, "table"), node.known(2, "scale")
    node.require_float(2)
    if node.dtype(0) == ir.DataType.UINT8:
        data, zero = unpacked(stored, bits), 1 << (bits - 1)
    else:
        bits, data, zero = 4, stored.astype(np.int16), 0
    size = data.shape[-1]
    count = -(-size // block)
    if scale.shape != (*data.shape[:-1], count):
        node.refuse(f"its scale has the shape {list(scale.shape)}, which is none of blocks of {block}")
    offset = _zero_points(node, bits, scale.shape, zero)
    padded = np.zeros((*data.shape[:-1], count * block), np.int16)
    padded[..., :size] = data
    parts = fitted(padded, scale, offset, block, size)
    signed = node.dtype(0) == ir.DataType.INT4
    return Codes(parts.data, parts.scale, parts.offset, bits, signed), size


def _zero_points(node: OnnxNode, bits: int, shape: tuple[int, ...], default: int) -> npt.NDArray[np.int16]:
    if not node.has_input(3):
        return np.full(shape, default, np.int16)
    stored = node.known(3, "zero points")
    if node.dtype(0) == ir.DataType.UINT8:
        stored = unpacked(stored, bits)[..., : shape[-1]]
    if stored.shape != shape:
        node.refuse(f"its zero points have the shape {list(stored.shape)}, its scale {list(shape)}")
    return stored.astype(np.int16)


def _cut(rows: Var, size: int) -> Var:
    """The first ``size`` numbers along the last axis."""
    rest = rows.rank - 1
    return builder().slice_by_index(
        x=rows,
        begin=np.zeros(rest + 1, np.int32),
        end=np.array([0] * rest + [size], np.int32),
        end_mask=[True] * rest + [False],
    )
