"""QuantizeLinear and DequantizeLinear: rounded activations, and weights that stay integers in the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import numpy as np
import onnx_ir as ir

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.gather_quantized import gather_block_quantized
from edgeq.targets.coreml.ops.indexing import indices_along
from edgeq.targets.coreml.ops.matmul_nbits import matmul_nbits
from edgeq.targets.coreml.ops.quantized_constants import Codes, constexpr, divided_blocks, spread
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler

_ROUNDED = (ir.DataType.INT8, ir.DataType.UINT8)
_STORED = {ir.DataType.INT8: 8, ir.DataType.UINT8: 8, ir.DataType.INT4: 4, ir.DataType.UINT4: 4}
_FOLDED = (ir.DataType.INT32, ir.DataType.INT16, ir.DataType.UINT16)
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def _quantize_linear(node: OnnxNode) -> Var | Array:
    """ONNX QuantizeLinear as MIL quantize (iOS17): clip(round_half_even(x / scale) + zero point)."""
    node.attribute("saturate")  # of float 8 only, which is refused
    axis, block = node.attribute("axis", 1), node.attribute("block_size", 0)
    dtype = _quantized_dtype(node)
    node.require_float(0)
    _same_precision(node)
    if block:
        node.refuse("activations are rounded in blocks, and Core ML has one scale or one per channel")
    scale, zero = _activation_parameters(node, dtype, axis)
    known = node.constant(0)
    if known is not None:
        return _rounded(known, scale, zero, axis, dtype)
    _check_activation(node)
    return builder().quantize(
        input=node.input(0), output_dtype=dtype.name.lower(), **_mil_parameters(node, scale, zero, axis)
    )


def _dequantize_linear(node: OnnxNode) -> Var | Array:
    """ONNX DequantizeLinear as MIL dequantize (iOS17), or as a constexpr op of constant integers."""
    axis, block = node.attribute("axis", 1), node.attribute("block_size", 0)
    dtype = node.dtype(0)
    output = node.attribute("output_dtype", 0)
    if output and ir.DataType(output) != node.dtype(1):
        node.refuse(f"output_dtype {ir.DataType(output).name.lower()} is not the dtype of its scale")
    node.require_float(1)
    known = node.constant(0)
    if known is not None:
        return _constant(node, known, dtype, axis, block)
    if dtype not in _ROUNDED:
        node.refuse(f"activations of {dtype.name.lower()} do not exist in Core ML")
    if block:
        node.refuse("activations are scaled in blocks, and Core ML has one scale or one per channel")
    scale, zero = _activation_parameters(node, dtype, axis)
    _check_activation(node)
    rows = _read_rows(node, dtype, axis)
    if rows is not None:
        return rows
    return builder().dequantize(input=node.input(0), **_mil_parameters(node, scale, zero, axis))


# --- activations --------------------------------------------------------------------------------------------


def _quantized_dtype(node: OnnxNode) -> ir.DataType:
    asked = node.attribute("output_dtype", 0) or ir.DataType.UINT8
    dtype = node.dtype(2) if node.has_input(2) else ir.DataType(asked)
    if dtype not in _ROUNDED:
        node.refuse(f"it rounds to {dtype.name.lower()}, and Core ML has int8 and uint8", "Quantize to int8.")
    return dtype


def _same_precision(node: OnnxNode) -> None:
    precision = node.attribute("precision", 0)
    if node.dtype(0) != node.dtype(1) or (precision and ir.DataType(precision) != node.dtype(1)):
        node.refuse("input, scale and division have different float types", "Give them one type.")


def _activation_parameters(node: OnnxNode, dtype: ir.DataType, axis: int) -> tuple[Array, Array]:
    """Scale and zero point: both scalars, or both vectors along ``axis``."""
    scale = node.known(1, "scale")
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        node.refuse("its scale is not positive and finite")
    zero = node.known(2, "zero point") if node.has_input(2) else np.zeros(scale.shape, dtype.numpy())
    if scale.size == 1:
        return scale.reshape(()), zero.reshape(())
    rank = node.rank(0)
    if scale.ndim != 1 or not -rank <= axis < rank or node.shape(0)[axis] != scale.size:
        node.refuse(f"its scale has the shape {list(scale.shape)}, which is none per tensor or per channel")
    return scale, zero


def _check_activation(node: OnnxNode) -> None:
    if node.lowering.ios < 17:
        node.refuse("rounded activations need iOS17 or later", "Choose iOS17 or iOS18.")
    if node.rank(0) == 0:
        node.refuse("it rounds a scalar, and Core ML rounds tensors of one dimension and more")


def _mil_parameters(node: OnnxNode, scale: Array, zero: Array, axis: int) -> dict[str, object]:
    """MIL's arguments; a zero point of 0 is its default and is left out, as in Apple's symmetric form."""
    found: dict[str, object] = {"scale": scale if scale.ndim else scale.dtype.type(scale)}
    if zero.any():
        found["zero_point"] = zero if zero.ndim else zero.dtype.type(zero)
    if scale.ndim:
        found["axis"] = np.int32(axis % node.rank(0))
    return found


def _rounded(values: Array, scale: Array, zero: Array, axis: int, dtype: ir.DataType) -> Array:
    limits = np.iinfo(dtype.numpy())
    shape = _along(axis, values.ndim)
    scale, zero = (p.reshape(shape) if p.ndim else p for p in (scale, zero))
    codes = np.rint(values.astype(np.float32) / scale.astype(np.float32)) + zero.astype(np.float32)
    return np.clip(codes, limits.min, limits.max).astype(dtype.numpy())


def _along(axis: int, rank: int) -> list[int]:
    shape = [1] * rank
    if rank:
        shape[axis] = -1
    return shape


# --- constants ----------------------------------------------------------------------------------------------


def _constant(node: OnnxNode, values: Array, dtype: ir.DataType, axis: int, block: int) -> Var | Array:
    """A weight stays integer; what is no weight (biases, vectors) becomes float: it is small."""
    if dtype not in (*_STORED, *_FOLDED):
        node.refuse(f"constants of {dtype.name.lower()} do not exist in Core ML")
    scale, offset = _constant_parameters(node, values.shape, axis, block)
    if dtype in _FOLDED:
        return _folded(values, scale, offset)
    codes = _codes(values, scale, offset, dtype)
    return codes.dequantized() if values.ndim <= 1 else constexpr(node, codes)


def _read_rows(node: OnnxNode, dtype: ir.DataType, axis: int) -> Var | None:
    """Rows that a Gather read from a table of integers: the table keeps its scales, and is gathered from.

    None: it is no such node, or its scales are not those of the table's last axis.
    """
    value = node.node.inputs[0]
    producer = None if value is None else value.producer()
    if producer is None or producer.op_type != "Gather" or producer.domain not in ("", "ai.onnx"):
        return None
    lookup = OnnxNode(producer, node.lowering)
    table = lookup.constant(0)
    if table is None or table.ndim < 2:
        return None
    rows, last = lookup.attribute("axis", 0) % table.ndim, table.ndim - 1
    if rows == last or (node.known(1, "scale").size > 1 and axis % node.rank(0) != node.rank(0) - 1):
        return None
    scale, offset = _constant_parameters(node, table.shape, last, 0)
    expanded = constexpr(node, _codes(table, scale, offset, dtype))
    return builder().gather(x=expanded, indices=indices_along(lookup, expanded, rows), axis=rows)


def _constant_parameters(
    node: OnnxNode, shape: tuple[int, ...], axis: int, block: int
) -> tuple[Array, Array | None]:
    """Scale and zero point (int32) of a constant, with its rank."""
    scale = node.known(1, "scale")
    if not np.isfinite(scale).all():
        node.refuse("its scale is not finite")
    full = _full_rank(node, scale, shape, axis, block)
    if not node.has_input(2):
        return full, None
    return full, _full_rank(node, node.known(2, "zero point").astype(np.int32), shape, axis, block)


def _codes(values: Array, scale: Array, offset: Array | None, dtype: ir.DataType) -> Codes:
    return Codes(
        values.astype(np.int16),
        scale,
        None if offset is None else offset.astype(np.int16),
        _STORED[dtype],
        dtype in (ir.DataType.INT8, ir.DataType.INT4),
    )


def _full_rank(node: OnnxNode, values: Array, shape: tuple[int, ...], axis: int, block: int) -> Array:
    """Scales or zero points with the rank of the tensor, in equal blocks along every axis."""
    rank = len(shape)
    if values.size == 1:
        return values.reshape([1] * rank)
    if not -rank <= axis < rank:
        node.refuse(f"its axis {axis} does not exist in a tensor of rank {rank}")
    if not block:
        if values.ndim != 1 or values.size != shape[axis]:
            node.refuse(f"its scale has the shape {list(values.shape)}, which is none per tensor or channel")
        return values.reshape(_along(axis, rank))
    axis %= rank
    expected = [-(-size // block) if i == axis else size for i, size in enumerate(shape)]
    if list(values.shape) != expected:
        node.refuse(f"its scale has the shape {list(values.shape)}, and blocks of {block} want {expected}")
    found = divided_blocks(values, axis, block, shape[axis])
    if found is None:
        node.refuse(f"blocks of {block} do not divide its axis of {shape[axis]}")
    return found


def _folded(values: Array, scale: Array, offset: Array | None) -> Array:
    """Integers that no weight format of Core ML holds, such as INT32 biases, as the floats they stand for."""
    scale = spread(scale, values.shape)
    offset = None if offset is None else spread(offset, values.shape)
    exact = values.astype(np.int64) - (0 if offset is None else offset)
    return np.asarray(exact.astype(np.float32) * scale.astype(np.float32), scale.dtype)


# --- what Core ML has no form for -------------------------------------------------------------------------


def _dynamic(node: OnnxNode) -> NoReturn:
    node.refuse(
        "its scale is found at run time, and Core ML has constant scales only",
        "Quantize the float model with int8-static or int8-weight instead.",
    )


def _integer_kernel(node: OnnxNode) -> NoReturn:
    node.refuse(
        "Core ML has no integer arithmetic, only float arithmetic between quantize and dequantize",
        "Give the model in QDQ form: DequantizeLinear before a float operator, QuantizeLinear after it.",
    )


_INTEGER_KERNELS = (
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
    "com.microsoft.QLinearAdd",
    "com.microsoft.QLinearMul",
    "com.microsoft.QLinearAveragePool",
    "com.microsoft.QLinearGlobalAveragePool",
    "com.microsoft.QLinearConcat",
    "com.microsoft.QLinearLeakyRelu",
    "com.microsoft.QLinearSigmoid",
    "com.microsoft.QLinearSoftmax",
    "com.microsoft.QLinearWhere",
    "com.microsoft.QGemm",
    "com.microsoft.QAttention",
    "com.microsoft.MatMulIntegerToFloat",
)

HANDLERS: dict[str, Handler] = {
    "QuantizeLinear": _quantize_linear,
    "DequantizeLinear": _dequantize_linear,
    "com.microsoft.QuantizeLinear": _quantize_linear,
    "com.microsoft.DequantizeLinear": _dequantize_linear,
    "com.microsoft.GatherBlockQuantized": gather_block_quantized,
    "com.microsoft.MatMulNBits": matmul_nbits,
    "DynamicQuantizeLinear": _dynamic,
    "com.microsoft.DynamicQuantizeMatMul": _dynamic,
    "com.microsoft.DynamicQuantizeLSTM": _dynamic,
    **dict.fromkeys(_INTEGER_KERNELS, _integer_kernel),
}
