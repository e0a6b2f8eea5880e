"""MatMul and Gemm as com.microsoft.MatMulNBits: weights of 4 or 8 bits in blocks along K."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import onnx_ir as ir

from edgeq.compiler.quantize.blocks import (
    StoredBlocks,
    how_rounded,
    packed_bytes,
    recipe_blocks,
    store_blocks,
)
from edgeq.compiler.quantize.expanded import expand_inputs, refused
from edgeq.compiler.quantize.linear import Linear, read_linear, scaled_bias
from edgeq.compiler.quantize.rewriter import MICROSOFT, Rewriter
from edgeq.compiler.quantize.stored_weights import expand_gemm, expand_matmul
from edgeq.compiler.quantize.walk import Decision
from edgeq.compiler.quantize.weights import TOO_FEW, Floats, Refusal

# What a MatMulNBits node and its initializers cost in a file more than the MatMul, besides the numbers.
_NODE_COST = 200


def nbits_linear(node: ir.Node, state: Rewriter, bits: int) -> Decision:
    """Put MatMulNBits in the place of a MatMul or Gemm; int8 or float where that makes no smaller file."""
    linear = read_linear(node, state)
    if isinstance(linear, Refusal):
        return _stored_in_int8(node, state, linear)
    size = _file_size(linear, bits, state)
    if bits == 4 and size >= _int8_size(linear):
        reason = f"int4 in blocks of {state.block_size} would be no smaller than int8 for {linear.k} inputs"
        return expand_inputs(node, state, [(1, (linear.channel_axis,))], f"{reason}: int8 weights")
    if size >= 4 * linear.weight.size:
        return refused(TOO_FEW)
    _replace(node, linear, state, bits)
    how = how_rounded(_key(linear, bits), state)
    return Decision("int4" if bits == 4 else "int8", _reason(state, bits) + how)


def nbits4_key(linear: Linear, state: Rewriter) -> Hashable | None:
    """What the 4-bit blocks of ``linear`` are kept under; None where :func:`nbits_linear` makes none."""
    size = _file_size(linear, 4, state)
    fits = size < min(_int8_size(linear), 4 * linear.weight.size)
    return _key(linear, 4) if fits else None


def _key(linear: Linear, bits: int) -> Hashable:
    return ("blocks", bits, linear.weight.root, linear.stored_rows, linear.alpha)


def _file_size(linear: Linear, bits: int, state: Rewriter) -> int:
    symmetric = state.recipe.symmetric_weights
    return _NODE_COST + packed_bytes(linear.n, linear.k, bits, state.block_size, symmetric=symmetric)


def _int8_size(linear: Linear) -> int:
    return linear.weight.size + 4 * linear.n


def _stored_in_int8(node: ir.Node, state: Rewriter, refusal: Refusal) -> Decision:
    """Int8 weights for what is no plain matrix product, where the target reads them without any cost."""
    if state.capabilities.weight_form != "dequantize":
        return refused(refusal)
    expand = expand_matmul if node.op_type == "MatMul" else expand_gemm
    return expand(node, state, f"{refusal.reason}: int8 weights")


def _reason(state: Rewriter, bits: int) -> str:
    recipe = state.recipe
    kind = "symmetric" if recipe.symmetric_weights else "asymmetric"
    arithmetic = "int8 activations per block" if recipe.accuracy_level == 4 else "float activations"
    return f"{kind} int{bits} weights in blocks of {state.block_size}, {arithmetic} (MatMulNBits)"


def _replace(node: ir.Node, linear: Linear, state: Rewriter, bits: int) -> None:
    name = node.name or ""
    stored = linear_blocks(linear, state, bits)
    made: list[ir.Node] = []
    bias, bias_nodes = scaled_bias(linear, name, state)
    made.extend(bias_nodes)
    codes = _three_dimensional(linear, stored, state, bits, made, name)
    inline = bias is not None and _is_vector(bias, linear.n)
    inputs = [linear.x, codes, stored.scales, stored.zero_points, None, bias if inline else None]
    attributes = {
        "K": linear.k,
        "N": linear.n,
        "bits": bits,
        "block_size": stored.block_size,
        "accuracy_level": state.recipe.accuracy_level,
    }
    while inputs[-1] is None:
        inputs.pop()
    alone = bias is None or inline
    product_name = name if alone else f"{name}_product"
    product = state.node(
        "MatMulNBits", inputs, product_name, attributes=attributes, domain=MICROSOFT, final=alone
    )
    made.append(product)
    if not alone:
        made.append(state.node("Add", [product.outputs[0], bias], name, final=True))
    state.replace(node, made)


def linear_blocks(linear: Linear, state: Rewriter, bits: int) -> StoredBlocks:
    """The packed weights of ``linear``, stored once however many nodes read them."""
    key = _key(linear, bits)
    if key not in state.cache:
        blocks = recipe_blocks(scaled_rows(linear), bits, state, key)
        state.cache[key] = store_blocks(linear.weight.name, blocks, state)
    stored: StoredBlocks = state.cache[key]
    return stored


def scaled_rows(linear: Linear) -> Floats:
    """float32 [N, K] with ``alpha`` applied: the kernel has none."""
    return linear.rows() if linear.alpha == 1.0 else linear.rows() * np.float32(linear.alpha)


def _three_dimensional(
    linear: Linear, stored: StoredBlocks, state: Rewriter, bits: int, made: list[ir.Node], name: str
) -> ir.Value:
    """MatMulNBits wants its codes as [N, blocks, bytes]; an embedding table that shares them has [V, bytes].

    The initializer itself takes the shape of its first reader; the Reshape is folded when the model loads.
    """
    shape = [linear.n, stored.blocks, stored.block_size * bits // 8]
    tensor = stored.codes.const_value
    assert tensor is not None
    shared = linear.weight.root in state.ties.tables
    if not shared:
        array = tensor.numpy().reshape(shape)
        stored.codes.const_value = ir.tensor(array, name=stored.codes.name)
        stored.codes.shape = ir.Shape(shape)
        return stored.codes
    target = state.initializer(f"{name}_shape", np.array(shape, np.int64))
    reshape = state.node("Reshape", [stored.codes, target], f"{name}_codes")
    made.append(reshape)
    return reshape.outputs[0]


def _is_vector(bias: ir.Value, n: int) -> bool:
    return bias.shape is not None and list(bias.shape) == [n]
