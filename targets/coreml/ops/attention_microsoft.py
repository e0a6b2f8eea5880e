"""ONNX Runtime's attention ops: Attention, MultiHeadAttention and GroupQueryAttention (com.microsoft)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from edgeq.targets.coreml.frontend.lowering import known_dimension
from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.attention_core import Formula, attend, join_heads, repeat_heads, split_heads
from edgeq.targets.coreml.ops.attention_masks import Mask, Operand, combine, counting, window
from edgeq.targets.coreml.ops.attention_rotary import Angles, rotate
from edgeq.targets.coreml.ops.tensors import Size, scalar, size
from edgeq.targets.coreml.toolkit import builder

_MASK_FILTER = -10000.0
# Attributes of GroupQueryAttention that are lowered in their neutral values only.
_GROUP_QUERY_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "causal": (1,),
    "k_quant_type": ("NONE",),
    "kv_cache_bit_width": (0, 8),
    "qk_norm_epsilon": (),
    "qk_output": (0,),
    "sliding_window_cache": (0,),
    "smooth_softmax": (0, -1),
    "v_quant_type": ("NONE",),
}


def multi_head_attention(node: OnnxNode) -> list[Var | None]:
    """MultiHeadAttention with separate query, key and value; masks of rank 2 and 3, bias and past."""
    node.require_float(0)
    if node.rank(0) != 3 or not (node.has_input(1) and node.has_input(2)):
        node.refuse("its query, key and value are packed", "Export the model with three separate inputs.")
    if node.wants(3):
        node.refuse("its output qk is not supported")
    query, key, value = _biased(node)
    past: Size = 0
    if node.has_input(6):
        past = size(node.input(6), 2)
        key = builder().concat(values=[node.input(6), key], axis=2)
        value = builder().concat(values=[node.input(7), value], axis=2)
    allowed = None
    if node.attribute("unidirectional", 0):
        allowed = window(size(query, 2), size(key, 2), _vector(past))
    mask = Mask(allowed, _bias(node, mask=4, bias=5), full_rows=True)
    formula = Formula(_scale(node, query))
    attended = attend(query, key, value, mask, formula, ios=node.lowering.ios)
    return [join_heads(attended.output), key, value]


def packed_attention(node: OnnxNode) -> Var:
    """Attention (com.microsoft): one projection to query, key and value, then multi-head attention."""
    node.require_float(0, 1)
    for name in ("do_rotary", "past_present_share_buffer", "rotary_embedding_dim"):
        if node.attribute(name, 0):
            node.refuse(f"{name}={node.attribute(name)} is not supported")
    if node.wants(1):
        node.refuse("its output present is not supported")
    heads = node.attribute("num_heads")
    query, key, value = [split_heads(node, part, heads) for part in _projected(node)]
    allowed = None
    if node.attribute("unidirectional", 0):
        allowed = window(size(query, 2), size(key, 2), _vector(0))
    mask = Mask(allowed, _bias(node, mask=3, bias=5), full_rows=True)
    formula = Formula(_scale(node, query))
    return join_heads(attend(query, key, value, mask, formula, ios=node.lowering.ios).output)


def _projected(node: OnnxNode) -> list[Var]:
    """Query, key and value [batch, sequence, hidden]; qkv_hidden_sizes says how wide each is."""
    mb, width = builder(), node.shape(1)[1]
    if width is None:
        node.refuse("its weight has a dynamic size")
    weight = node.constant(1)
    if weight is None:
        projected = mb.matmul(x=node.input(0), y=node.input(1))
    else:
        projected = mb.linear(x=node.input(0), weight=np.ascontiguousarray(weight.T))
    if node.has_input(2):
        projected = mb.add(x=projected, y=node.input(2))
    widths = node.attribute("qkv_hidden_sizes") or [width // 3] * 3
    return list(mb.split(x=projected, split_sizes=widths, axis=2))


def _biased(node: OnnxNode) -> list[Var]:
    """Query, key and value as [batch, heads, sequence, head size], the projections' bias added."""
    heads, bias = node.attribute("num_heads"), node.optional(3)
    found = [node.input(index) for index in range(3)]
    given: list[Var | None] = [None] * 3
    if bias is not None:
        hidden = [known_dimension(x.shape[2]) if x.rank == 3 else None for x in found]
        if None in hidden:
            node.refuse("a bias with keys or values of rank 4, or of a dynamic hidden size")
        given = builder().split(x=bias, split_sizes=hidden, axis=0)
    parts = []
    for x, offset in zip(found, given, strict=True):
        moved = x if offset is None else builder().add(x=x, y=offset)
        parts.append(split_heads(node, moved, heads) if x.rank == 3 else moved)
    return parts


def _bias(node: OnnxNode, mask: int, bias: int) -> Var | None:
    """The input ``bias`` plus mask_filter_value where the input ``mask`` (0 for padding) is not positive."""
    mb, given = builder(), node.optional(bias)
    filtered = node.attribute("mask_filter_value", _MASK_FILTER)
    if not node.has_input(mask):
        return given
    rank = node.rank(mask)
    if rank not in (2, 3):
        node.refuse(f"a padding mask of rank {rank}, and 2 and 3 are supported")
    node.require_dtype((ir.DataType.INT32,), mask)
    keep = node.input(mask)
    zeros = mb.fill(shape=mb.shape(x=keep), value=scalar(node.input(0), 0.0))
    padding = mb.select(cond=mb.greater(x=keep, y=np.int32(0)), a=zeros, b=scalar(zeros, filtered))
    spread = mb.expand_dims(x=padding, axes=[1, 2] if rank == 2 else [1])
    return spread if given is None else mb.add(x=given, y=spread)


def _scale(node: OnnxNode, query: Var) -> float:
    scale, head = node.attribute("scale", 0.0), known_dimension(query.shape[3])
    if not scale and not head:
        node.refuse("its head size is dynamic")
    return float(scale) if scale else 1 / math.sqrt(head or 1)


def _vector(count: Size) -> Operand:
    return np.array([count], np.int32) if isinstance(count, int) else count


def group_query_attention(node: OnnxNode) -> list[Var | None]:
    """GroupQueryAttention of prompts, and with a past whose length is known.

    As in ONNX Runtime, what comes out after the end of a shorter sample (``seqlens_k``) means nothing.
    """
    node.require_float(0)
    _require_neutral(node)
    query, key, value = _group_query_inputs(node)
    past = _past_length(node, query)
    if node.attribute("do_rotary", 0):
        query, key = _rotated(node, query, key, past)
    if past:
        key = builder().concat(values=[node.input(3), key], axis=2)
        value = builder().concat(values=[node.input(4), value], axis=2)
    span = node.attribute("local_window_size", -1)
    left = span - 1 if span > 0 else None
    allowed = window(size(query, 2), size(key, 2), _vector(past), left)
    times = node.attribute("num_heads") // node.attribute("kv_num_heads")
    attended = attend(
        query,
        repeat_heads(key, times),
        repeat_heads(value, times),
        Mask(allowed, node.optional(10), full_rows=True),
        Formula(_scale(node, query), node.attribute("softcap", 0.0)),
        ios=node.lowering.ios,
    )
    return [join_heads(attended.output), key, value]


def _require_neutral(node: OnnxNode) -> None:
    for name, allowed in _GROUP_QUERY_NEUTRAL.items():
        value = node.attribute(name)
        if value is not None and allowed and value not in allowed:
            node.refuse(f"{name}={value} is not supported")
    if node.wants(3):
        node.refuse("its output output_qk is not supported")


def _group_query_inputs(node: OnnxNode) -> list[Var]:
    heads, few = node.attribute("num_heads"), node.attribute("kv_num_heads")
    if node.has_input(1):
        return [split_heads(node, node.input(index), count) for index, count in enumerate((heads, few, few))]
    packed = node.input(0)
    hidden = known_dimension(packed.shape[2])
    if hidden is None or hidden % (heads + 2 * few):
        node.refuse(f"the packed hidden size {hidden} is no multiple of {heads} + 2 · {few} heads")
    unit = hidden // (heads + 2 * few)
    widths = [heads * unit, few * unit, few * unit]
    parts = builder().split(x=packed, split_sizes=widths, axis=2)
    return [split_heads(node, part, count) for part, count in zip(parts, (heads, few, few), strict=True)]


def _past_length(node: OnnxNode, query: Var) -> int:
    """Valid keys before the first query: 0 for prompts, the whole past when that is certain."""
    total = node.constant(6)
    node.constant(5)  # seqlens_k follows from total_sequence_length where this is lowered
    if not node.has_input(3):
        return 0
    batch, _, length, _ = node.shape(3)
    steps = known_dimension(query.shape[2])
    if batch != 1 or length is None or steps is None or total is None or int(total) != length + steps:
        node.refuse(
            "how much of past_key is valid is known at run time only",
            "Fix batch 1 and the lengths of past and sequence, their sum being total_sequence_length.",
        )
    return length


def _rotated(node: OnnxNode, query: Var, key: Var, past: int) -> tuple[Var, Var]:
    mb = builder()
    positions = combine("add", counting(size(query, 2)), _vector(past))
    angles = Angles(
        mb.gather(x=node.input(7), indices=positions, axis=0),
        mb.gather(x=node.input(8), indices=positions, axis=0),
    ).along(1)
    interleaved = bool(node.attribute("rotary_interleaved", 0))
    return rotate(query, angles, interleaved=interleaved), rotate(key, angles, interleaved=interleaved)
