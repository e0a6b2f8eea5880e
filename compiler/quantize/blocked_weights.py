"""INT4 weights as DequantizeLinear in blocks (opset 21), for targets whose kernels read that form themselves.

A block runs along the axis that a product sums up, or along the rows of an embedding table. The integers keep
the layout of the stored weight: a Transpose behind the DequantizeLinear is part of the kernel.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgeq.compiler.plan import QuantSpec
from edgeq.compiler.quantize.attention_output import keep_apart
from edgeq.compiler.quantize.blocks import Blocks, how_rounded, recipe_blocks, unpack
from edgeq.compiler.quantize.expanded import expand_inputs, refuse_weight, refused, seen_by_node
from edgeq.compiler.quantize.linear import Linear, read_linear
from edgeq.compiler.quantize.rewriter import Rewriter
from edgeq.compiler.quantize.stored_weights import expand_gemm, expand_matmul
from edgeq.compiler.quantize.walk import Decision
from edgeq.compiler.quantize.weights import Refusal, Weight

_BITS = 4
Codes = npt.NDArray[np.int8]


def blocked_linear(node: ir.Node, state: Rewriter) -> Decision:
    """INT4 weights of a MatMul or Gemm; INT8 per channel where its blocks would not be whole."""
    linear = read_linear(node, state)
    if isinstance(linear, Refusal):
        expand = expand_matmul if node.op_type == "MatMul" else expand_gemm
        return expand(node, state, f"{linear.reason}: int8 weights")
    reason = _unpacked(linear, state)
    if reason is not None and refuse_weight(linear.weight, (linear.channel_axis,)) is None:
        return expand_inputs(node, state, [(1, (linear.channel_axis,))], f"{reason}: int8 weights")
    decision = _in_blocks(node, 1, linear.weight, 1 - linear.channel_axis, state)
    if decision.precision == "int4" and "behind-attention" in state.capabilities.unpacks:
        keep_apart(node, linear.k, state)
    return decision


def blocked_key(linear: Linear, state: Rewriter) -> Hashable | None:
    """What the INT4 blocks of ``linear`` are kept under; None where :func:`blocked_linear` makes none."""
    axis = linear.channel_axis
    if _unpacked(linear, state) is not None or refuse_weight(linear.weight, (axis,)) is not None:
        return None
    return None if linear.k % state.block_size else _key(linear.weight, 1 - axis)


def blocked_table(node: ir.Node, weight: Weight, state: Rewriter) -> Decision:
    """INT4 rows of the embedding table that a Gather reads; INT8 where blocks would not be whole."""
    return _in_blocks(node, 0, weight, 1, state)


def _unpacked(linear: Linear, state: Rewriter) -> str | None:
    """Why the target would widen the weights of a product on every run, in a kernel of its own."""
    size, unpacks = state.block_size, state.capabilities.unpacks
    if "single-block" in unpacks and linear.k == size:
        return f"its {size} inputs are a single block, which a kernel of its own would unpack"
    if "odd-outputs" in unpacks and linear.n % 2:
        return f"it has {linear.n} outputs, and a kernel of its own would unpack an odd number"
    return None


def _in_blocks(node: ir.Node, index: int, weight: Weight, axis: int, state: Rewriter) -> Decision:
    size = state.block_size
    refusal = refuse_weight(weight, (1 - axis,))
    if refusal is not None:
        return refused(refusal)
    if weight.shape[axis] % size:
        reason = f"blocks of {size} do not divide its {weight.shape[axis]} inputs: int8 weights"
        return expand_inputs(node, state, [(index, (1 - axis,))], reason)
    node.replace_input_with(index, _dequantized(weight, axis, state))
    kind = "symmetric" if state.recipe.symmetric_weights else "asymmetric"
    how = how_rounded(_key(weight, axis), state)
    return Decision("int4", f"{kind} int4 weights in blocks of {size}, float activations{how}")


def _dequantized(weight: Weight, axis: int, state: Rewriter) -> ir.Value:
    """``weight`` as its node sees it, read from integers that are stored once for all its readers."""
    key = _key(weight, axis)
    if key not in state.cache:
        state.cache[key] = _store(weight, _stored_axis(weight, axis), state)
    return seen_by_node(state.cache[key], weight, state)


def _key(weight: Weight, axis: int) -> Hashable:
    return ("int4", weight.root, _stored_axis(weight, axis))


def _stored_axis(weight: Weight, axis: int) -> int:
    return axis if weight.perm is None else weight.perm[axis]


def _store(weight: Weight, axis: int, state: Rewriter) -> ir.Value:
    stored = Weight(weight.root, weight.tensor)
    array = stored.array()
    rows = np.ascontiguousarray(array if axis == 1 else array.T)
    blocks = recipe_blocks(rows, _BITS, state, _key(stored, axis))
    codes, scales, zeros = _codes(blocks), blocks.scales, _zero_points(blocks)
    if axis == 0:
        codes, scales, zeros = codes.T, scales.T, None if zeros is None else zeros.T
    name, dtype = weight.name, ir.DataType.INT4 if zeros is None else ir.DataType.UINT4
    spec = QuantSpec("int4" if zeros is None else "uint4", zeros is None, axis, blocks.block_size)
    state.record(name, spec, scales, np.zeros((), np.int8) if zeros is None else zeros)
    inputs = [
        state.initializer(f"{name}_int4", codes.astype(dtype.numpy())),
        state.initializer(f"{name}_scale", scales),
    ]
    if zeros is not None:
        inputs.append(state.initializer(f"{name}_zero_point", zeros.astype(dtype.numpy())))
    attributes = {"axis": axis, "block_size": blocks.block_size}
    made = state.node("DequantizeLinear", inputs, f"{name}_expanded", attributes=attributes)
    state.insert_first([made])
    value = made.outputs[0]
    value.shape, value.type = ir.Shape(stored.shape), ir.TensorType(ir.DataType.FLOAT)
    return value


def _codes(blocks: Blocks) -> Codes:
    """Codes int8 [N, K]: around 0, or from 0 to 15 where blocks have zero points."""
    codes = unpack(blocks.codes, blocks.bits, blocks.block_size).astype(np.int8)
    if blocks.zero_points is None:
        codes -= 1 << (blocks.bits - 1)
    return codes.reshape(len(codes), -1)


def _zero_points(blocks: Blocks) -> Codes | None:
    """Zero points int8 [N, blocks]."""
    if blocks.zero_points is None:
        return None
    return unpack(blocks.zero_points, blocks.bits, blocks.scales.shape[1]).astype(np.int8)
