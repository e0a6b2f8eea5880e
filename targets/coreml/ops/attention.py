"""ONNX's Attention, and the table of the family."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgeq.targets.coreml.frontend.lowering import known_dimension
from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.attention_core import (
    SCORE_OUTPUTS,
    Formula,
    attend,
    join_heads,
    repeat_heads,
    split_heads,
)
from edgeq.targets.coreml.ops.attention_masks import Mask, Operand, both, combine, counting, padded_to, window
from edgeq.targets.coreml.ops.attention_microsoft import (
    group_query_attention,
    multi_head_attention,
    packed_attention,
)
from edgeq.targets.coreml.ops.attention_rotary import microsoft_rotary_embedding, rotary_embedding
from edgeq.targets.coreml.ops.tensors import reshape, scalar, size
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler

_PRECISIONS = {ir.DataType.FLOAT: "fp32", ir.DataType.FLOAT16: "fp16"}


def attention(node: OnnxNode) -> list[Var | None]:
    """Attention of opsets 23 and 24: all inputs and outputs but a float64 or bfloat16 softmax."""
    node.require_float(0, 1, 2)
    query, key, value = _inputs(node)
    key, value = _with_past(node, key, value)
    mask = _mask(node, query, key)
    mode = node.attribute("qk_matmul_output_mode", 0)
    if mode not in SCORE_OUTPUTS:
        node.refuse(f"qk_matmul_output_mode={mode} is unknown")
    groups = _groups(node, query, key)
    attended = attend(
        query,
        repeat_heads(key, groups),
        repeat_heads(value, groups),
        mask,
        _formula(node, query),
        ios=node.lowering.ios,
        parts=node.wants(3),
    )
    output = join_heads(attended.output) if node.rank(0) == 3 else attended.output
    return [output, key, value, SCORE_OUTPUTS[mode](attended) if node.wants(3) else None]


def _inputs(node: OnnxNode) -> list[Var]:
    """Query, key and value as [batch, heads, sequence, head size]."""
    found = [node.input(index) for index in range(3)]
    heads = node.attribute("q_num_heads"), node.attribute("kv_num_heads")
    if {x.rank for x in found} == {4}:
        return found
    if {x.rank for x in found} != {3} or None in heads:
        node.refuse("its inputs are neither of rank 4 nor of rank 3 with q_num_heads and kv_num_heads")
    return [
        split_heads(node, x, count) for x, count in zip(found, (heads[0], heads[1], heads[1]), strict=True)
    ]


def _with_past(node: OnnxNode, key: Var, value: Var) -> tuple[Var, Var]:
    if not node.has_input(4):
        return key, value
    mb = builder()
    node.require_float(4, 5)
    return (
        mb.concat(values=[node.input(4), key], axis=2),
        mb.concat(values=[node.input(5), value], axis=2),
    )


def _groups(node: OnnxNode, query: Var, key: Var) -> int:
    """Query heads per key head."""
    many, few = known_dimension(query.shape[1]), known_dimension(key.shape[1])
    if many is None or few is None or many % few:
        node.refuse(f"{many} query heads on {few} key heads")
    return many // few


def _formula(node: OnnxNode, query: Var) -> Formula:
    head = known_dimension(query.shape[3])
    scale = node.attribute("scale")
    if scale is None and head is None:
        node.refuse("its head size is dynamic")
    asked = node.attribute("softmax_precision")
    if asked is not None and asked not in _PRECISIONS:
        node.refuse(f"softmax_precision={ir.DataType(asked).name.lower()} is no precision of Core ML")
    return Formula(
        scale=1 / math.sqrt(head) if scale is None and head else float(scale),
        softcap=node.attribute("softcap", 0.0),
        precision=None if asked in (None, node.dtype(0)) else _PRECISIONS[ir.DataType(asked)],
    )


def _mask(node: OnnxNode, query: Var, key: Var) -> Mask:
    queries, keys = size(query, 2), size(key, 2)
    allowed, bias = _given_mask(node, keys)
    lengths = _lengths(node)
    if node.attribute("is_causal", 0):
        allowed = both(allowed, window(queries, keys, _offset(node, lengths, queries)))
    if lengths is not None:
        allowed = both(allowed, combine("less", counting(keys), lengths))
    # the first key comes before every query where only the causal mask counts
    return Mask(allowed, bias, full_rows=not node.has_input(3) and lengths is None)


def _given_mask(node: OnnxNode, keys: int | Var) -> tuple[Operand | None, Var | None]:
    """attn_mask as ``allowed`` or as bias; one that is too short is closed at its end."""
    if not node.has_input(3):
        return None, None
    is_bool = node.dtype(3) == ir.DataType.BOOL
    if not is_bool:
        node.require_dtype((node.dtype(0),), 3)
    mask = node.input(3)
    width = known_dimension(mask.shape[-1])
    if width is not None and not isinstance(keys, int):
        node.refuse("attn_mask has a fixed width and the keys have not")
    if width is not None and width != keys:
        if None in node.shape(3) or width > keys:
            node.refuse(f"attn_mask has {width} columns for {keys} keys, or a dynamic size")
        mask = padded_to(mask, keys, np.bool_(False) if is_bool else scalar(mask, -np.inf))
    constant = node.constant(3)
    if is_bool:
        return (constant if constant is not None and width == keys else mask), None
    return None, mask


def _lengths(node: OnnxNode) -> Operand | None:
    """nonpad_kv_seqlen as [batch, 1, 1, 1]."""
    if not node.has_input(6):
        return None
    node.require_dtype((ir.DataType.INT64, ir.DataType.INT32), 6)
    if node.has_input(4):
        node.refuse("nonpad_kv_seqlen together with past_key")
    constant = node.constant(6)
    if constant is not None:
        return constant.astype(np.int32).reshape(-1, 1, 1, 1)
    lengths = node.input(6)
    return reshape(lengths, [size(lengths, 0), 1, 1, 1])


def _offset(node: OnnxNode, lengths: Operand | None, queries: int | Var) -> Operand:
    """Keys before the first query."""
    if node.has_input(4):
        past = size(node.input(4), 2)
        return np.array([past], np.int32) if isinstance(past, int) else past
    if lengths is None:
        return np.zeros(1, np.int32)
    return combine("sub", lengths, np.array([queries], np.int32) if isinstance(queries, int) else queries)


HANDLERS: dict[str, Handler] = {
    "Attention": attention,
    "RotaryEmbedding": rotary_embedding,
    "com.microsoft.Attention": packed_attention,
    "com.microsoft.GroupQueryAttention": group_query_attention,
    "com.microsoft.MultiHeadAttention": multi_head_attention,
    "com.microsoft.RotaryEmbedding": microsoft_rotary_embedding,
}
