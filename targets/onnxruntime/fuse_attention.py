"""Attention between the projections as one float kernel: ONNX's Attention on rows of all heads.

The moves to heads and back disappear into it, with the mask and the softmax. Measured with ONNX Runtime 1.31
on one thread with AVX2, 64 rows, 12 heads of 32: the separate kernels take 277 µs, MultiHeadAttention 233 and
Attention 174.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeq.compiler.normalize.attention import ATTENTION_OPSET, Attention, find_attention
from edgeq.compiler.normalize.editing import is_op, only_user, producer
from edgeq.compiler.normalize.opset import raise_opset
from edgeq.compiler.normalize.symbolic import Element, dimensions, product, same
from edgeq.compiler.quantize.rewriter import Editor
from edgeq.targets.onnxruntime.fused_nodes import behind_roundings, replace_by, transposed_from

_TO_HEADS = [0, 2, 1, 3]
_TO_COLUMNS = [0, 2, 3, 1]


@dataclass(frozen=True)
class _Rows:
    """float32 ``value`` [batch, sequence, heads * size] that is read as [batch, sequence, heads, size]."""

    value: ir.Value
    batch: Element
    sequence: Element
    heads: int


def fuse_attention(node: ir.Node, edit: Editor) -> bool:
    """Replace the attention that ends in the product ``node``; False where it is none or has no kernel."""
    softmax = producer(node.inputs[0], "Softmax") if is_op(node, "MatMul") else None
    found = None if softmax is None else find_attention(node, softmax)
    if found is None or softmax is None:
        return False
    rows = _all_rows(found)
    last = _back_to_rows(node)
    if rows is None or last is None:
        return False
    query, key, value = rows
    mask = None
    if found.mask is not None:
        mask = _mask(found.mask, query, key, edit, softmax)
        if mask is None:
            return False
    inputs = [query.value, key.value, value.value, *([mask] if mask is not None else [])]
    parts = _between(last, [query.value, key.value, value.value, found.mask])
    attributes = {"q_num_heads": query.heads, "kv_num_heads": key.heads, "scale": found.scale}
    raise_opset(edit.model, ATTENTION_OPSET)
    replace_by(edit, last, "Attention", inputs, parts, attributes=attributes)
    return True


def _all_rows(found: Attention) -> tuple[_Rows, _Rows, _Rows] | None:
    query = _rows(transposed_from(found.query, _TO_HEADS))
    key = _rows(transposed_from(found.keys, _TO_COLUMNS))
    value = _rows(transposed_from(found.values, _TO_HEADS))
    if query is None or key is None or value is None:
        return None
    if not query.heads == key.heads == value.heads:
        return None
    return query, key, value


def _rows(heads: ir.Value | None) -> _Rows | None:
    """The rows that a Reshape has split into heads, where all their dimensions are known to fit."""
    reshape = producer(heads, "Reshape")
    split = dimensions(heads)
    whole = None if reshape is None else dimensions(reshape.inputs[0])
    if reshape is None or split is None or whole is None or len(split) != 4 or len(whole) != 3:
        return None
    count, value = split[2], reshape.inputs[0]
    if not isinstance(count, int) or value is None or not same(whole[2], product(split[2:])):
        return None
    if not (same(whole[0], split[0]) and same(whole[1], split[1])):
        return None
    return _Rows(value, whole[0], whole[1], count)


def _back_to_rows(node: ir.Node) -> ir.Node | None:
    """The Reshape that puts the heads beside each other again."""
    transpose = only_user(behind_roundings(node.outputs[0]))
    if transpose is None or not is_op(transpose, "Transpose"):
        return None
    if list(transpose.attributes.get_ints("perm", ())) != _TO_HEADS:
        return None
    reshape = only_user(behind_roundings(transpose.outputs[0]))
    if reshape is None or not is_op(reshape, "Reshape"):
        return None
    split, whole = dimensions(transpose.outputs[0]), dimensions(reshape.outputs[0])
    if split is None or whole is None or len(whole) != 3 or not same(whole[2], product(split[2:])):
        return None
    return reshape if same(whole[0], split[0]) and same(whole[1], split[1]) else None


def _mask(mask: ir.Value, query: _Rows, key: _Rows, edit: Editor, before: ir.Node) -> ir.Value | None:
    """The mask in the kernel's shape [1 or batch, 1 or heads, queries, keys], None where it has none."""
    found = dimensions(mask)
    if found is None or len(found) != 4 or not same(found[3], key.sequence):
        return None
    if not (found[0] == 1 or same(found[0], query.batch)) or found[1] not in (1, query.heads):
        return None
    if same(found[2], query.sequence):
        return mask
    return _with_rows(mask, query, edit, before) if found[2] == 1 else None


def _with_rows(mask: ir.Value, query: _Rows, edit: Editor, before: ir.Node) -> ir.Value:
    """The mask repeated for every query; made once for all layers, in front of the first."""
    key = ("rows", mask, query.sequence)
    if key not in edit.cache:
        ones = edit.initializer(f"{mask.name}_ones", np.array([1, 1]))
        one = edit.initializer(f"{mask.name}_one", np.array([1]))
        attributes = {"start": 1, "end": 2}
        count = edit.node("Shape", [query.value], f"{mask.name}_queries", attributes=attributes)
        shape_inputs = [ones, count.outputs[0], one]
        shape = edit.node("Concat", shape_inputs, f"{mask.name}_shape", attributes={"axis": 0})
        expand = edit.node("Expand", [mask, shape.outputs[0]], f"{mask.name}_rows")
        edit.insert_before(before, [count, shape, expand])
        edit.cache[key] = expand.outputs[0]
    made: ir.Value = edit.cache[key]
    return made


def _between(last: ir.Node, ends: list[ir.Value | None]) -> list[ir.Node]:
    """``last`` and the nodes before it, up to the values ``ends``."""
    found: dict[ir.Node, None] = {}
    waiting = [last]
    while waiting:
        node = waiting.pop()
        found[node] = None
        for value in node.inputs:
            source = None if value is None or value in ends else value.producer()
            if source is not None and source not in found:
                waiting.append(source)
    return list(found)
