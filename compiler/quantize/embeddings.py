"""Embedding tables: rows are gathered as integers and only the gathered ones become float."""

from __future__ import annotations

import onnx_ir as ir

from edgeq.compiler.quantize.blocked_weights import blocked_table
from edgeq.compiler.quantize.blocks import StoredBlocks, packed_bytes, recipe_blocks, store_blocks
from edgeq.compiler.quantize.expanded import expand_inputs, int8_codes, refuse_weight, refused
from edgeq.compiler.quantize.rewriter import MICROSOFT, Rewriter
from edgeq.compiler.quantize.walk import Decision
from edgeq.compiler.quantize.weights import Refusal, Weight, find_weight, why_not_constant


def int8_gather(node: ir.Node, state: Rewriter, *, pairs: bool = False) -> Decision:
    """Gather int8 rows and their scales, multiply the gathered ones. ``pairs``: see ``int8_codes``."""
    weight = _table(node)
    if isinstance(weight, Refusal):
        return refused(weight)
    refusal = refuse_weight(weight, (0,))
    if refusal is not None:
        return refused(refusal)
    if state.capabilities.weight_form == "dequantize":
        return expand_inputs(node, state, [(0, (0,))], "int8 rows with a scale each, expanded by the runtime")
    codes, scales = int8_codes(weight, (0,), state, pairs_along=1 if pairs else None)
    name, indices = node.name or "", node.inputs[1]
    rows = state.node("Gather", [codes, indices], f"{name}_int8")
    cast = state.node("Cast", [rows.outputs[0]], f"{name}_cast", attributes={"to": int(ir.DataType.FLOAT)})
    row_scales = state.node("Gather", [scales, indices], f"{name}_scales")
    product = state.node("Mul", [cast.outputs[0], row_scales.outputs[0]], name, final=True)
    state.replace(node, [rows, cast, row_scales, product])
    return Decision("int8", "int8 rows with a scale each; only the gathered rows become float")


def blocked_gather(node: ir.Node, state: Rewriter, bits: int) -> Decision:
    """GatherBlockQuantized; int8 rows where that is not possible or no smaller."""
    weight = _table(node)
    if isinstance(weight, Refusal):
        return refused(weight)
    if state.capabilities.block_form == "dequantize":
        return blocked_table(node, weight, state)
    v, d = weight.shape
    if bits == 4 and d % 2:
        return _int8_instead(node, state, f"int4 rows need an even length, these have {d}")
    size = packed_bytes(v, d, bits, state.block_size, symmetric=state.recipe.symmetric_weights)
    if bits == 4 and size >= weight.size + 4 * v:
        return _int8_instead(
            node, state, f"int4 in blocks of {state.block_size} would be no smaller than int8"
        )
    refusal = refuse_weight(weight, (0,))
    if refusal is not None:
        return refused(refusal)
    stored = table_blocks(weight, state, bits)
    attributes = {
        "bits": bits,
        "block_size": stored.block_size,
        "gather_axis": 0,
        "quantize_axis": 1,
    }
    inputs = [stored.codes, node.inputs[1], stored.scales]
    if stored.zero_points is not None:
        inputs.append(stored.zero_points)
    made = state.node(
        "GatherBlockQuantized",
        inputs,
        node.name or "",
        attributes=attributes,
        domain=MICROSOFT,
        final=True,
    )
    state.replace(node, [made])
    return Decision(
        "int4" if bits == 4 else "int8", f"int{bits} rows in blocks of {stored.block_size}, gathered as such"
    )


def _int8_instead(node: ir.Node, state: Rewriter, why: str) -> Decision:
    decision = int8_gather(node, state)
    if decision.precision != "int8":
        return decision
    return Decision("int8", f"{why}: {decision.reason}")


def table_blocks(weight: Weight, state: Rewriter, bits: int) -> StoredBlocks:
    """The packed rows of a table, shared with the output layer that is tied to it.

    GatherBlockQuantized wants rows of exactly D codes, MatMulNBits whole blocks: they can share only
    where the blocks divide D.
    """
    d = weight.shape[1]
    whole = d % state.block_size == 0
    key = ("blocks", bits, weight.root, True, 1.0 if whole else "gather")
    if key not in state.cache:
        blocks = recipe_blocks(weight.array(), bits, state, key)
        stored = store_blocks(weight.name, blocks, state)
        if not whole:
            _cut_rows(stored, d * bits // 8)
        state.cache[key] = stored
    known: StoredBlocks = state.cache[key]
    return known


def _cut_rows(stored: StoredBlocks, row_bytes: int) -> None:
    tensor = stored.codes.const_value
    assert tensor is not None
    array = tensor.numpy()[:, :row_bytes].copy()
    stored.codes.const_value = ir.tensor(array, name=stored.codes.name)
    stored.codes.shape = ir.Shape(array.shape)


def _table(node: ir.Node) -> Weight | Refusal:
    weight = find_weight(node.inputs[0])
    if weight is None:
        return why_not_constant(node.inputs[0])
    if len(weight.shape) != 2 or weight.perm is not None or node.attributes.get_int("axis", 0) != 0:
        return Refusal("it gathers from a constant that is no table of rows", asked=False)
    return weight
