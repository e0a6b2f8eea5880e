"""com.microsoft.MatMulNBits: a linear layer whose weights stay in blocks of 4 or 8 bits in the package."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.quantized_constants import Codes, constexpr, fitted, unpacked
from edgeq.targets.coreml.toolkit import builder

# MIL's linear takes inputs of these ranks.
_LINEAR_RANKS = (1, 2, 3)


def matmul_nbits(node: OnnxNode) -> Var:
    """MatMulNBits: ``A @ dequantized(B).T + bias``, with B [N, K] in blocks along K.

    ``accuracy_level`` allows kernels to round A; here it is never rounded, which every level allows.
    """
    node.require_float(0)
    node.attribute("accuracy_level", 0)
    if node.attribute("weight_prepacked", 0):
        node.refuse("its weights are in the layout of one GPU", "Export the model without prepacking.")
    if node.has_input(4):
        node.refuse("g_idx gives every input a group of its own", "Quantize without reordering activations.")
    codes = _weights(node)
    return _product(node, codes)


def _weights(node: OnnxNode) -> Codes:
    bits, block = node.attribute("bits", 4), node.attribute("block_size")
    n, k = node.attribute("N"), node.attribute("K")
    if bits not in (4, 8):
        node.refuse(f"weights of {bits} bits have no form in Core ML", "Quantize to 4 or 8 bits.")
    if node.dtype(1) != ir.DataType.UINT8 or node.dtype(2) != node.dtype(0):
        node.refuse("its weights are no packed bytes, or its scale has another type than its input")
    count = -(-k // block)
    packed, scale = node.known(1, "weights"), node.known(2, "scale")
    if packed.size != n * count * block * bits // 8 or scale.size != n * count:
        node.refuse(f"its weights or scales do not have the size of {n} rows of {count} blocks of {block}")
    codes = unpacked(packed.reshape(n, -1), bits)
    offset = _zero_points(node, n, count, bits)
    parts = fitted(codes, scale.reshape(n, count), offset, block, k)
    return Codes(parts.data, parts.scale, parts.offset, bits, signed=False)


def _zero_points(node: OnnxNode, n: int, count: int, bits: int) -> npt.NDArray[np.int16]:
    if not node.has_input(3):
        return np.full((n, count), 1 << (bits - 1), np.int16)
    stored = node.known(3, "zero points")
    if stored.dtype != np.uint8:
        return _whole(node, stored, n, count, bits)
    if stored.size != n * -(-count * bits // 8):
        node.refuse(f"its zero points do not have the size of {n} rows of {count} blocks")
    return unpacked(stored.reshape(n, -1), bits)[:, :count]


def _whole(node: OnnxNode, stored: Array, n: int, count: int, bits: int) -> npt.NDArray[np.int16]:
    """Zero points given as floats: Core ML stores integers of the codes' type."""
    values = stored.astype(np.float32).reshape(n, count)
    if not np.all((values == np.rint(values)) & (values >= 0) & (values < 1 << bits)):
        node.refuse("its zero points are no whole numbers of the codes' range")
    return values.astype(np.int16)


def _product(node: OnnxNode, codes: Codes) -> Var:
    mb, x = builder(), node.input(0)
    if x.rank == 0:
        node.refuse("its input is a scalar")
    missing = codes.data.shape[1] - node.attribute("K")
    if missing:  # zeros meet the padding of the weights
        x = mb.pad(x=x, pad=np.array([0] * (2 * x.rank - 1) + [missing], np.int32), mode="constant")
    weight = constexpr(node, codes)
    bias = node.constant(5)
    if x.rank in _LINEAR_RANKS:
        result = mb.linear(x=x, weight=weight, bias=bias)
    else:
        result = mb.matmul(x=x, y=weight, transpose_y=True)
    if node.has_input(5) and (bias is None or x.rank not in _LINEAR_RANKS):
        result = mb.add(x=result, y=node.input(5))
    return result
