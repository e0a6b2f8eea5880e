"""Scaled dot-product attention on tensors [batch, heads, sequence, head size]."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from edgeq.targets.coreml.frontend.lowering import known_dimension, mil_type_name
from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.attention_masks import Mask, additive, guarded
from edgeq.targets.coreml.ops.tensors import product, reshape, scalar, size
from edgeq.targets.coreml.toolkit import builder

# MIL has an attention op of its own from iOS 18 on.
_NATIVE_SINCE = 18
_EXACT = 1e-6


@dataclass(frozen=True)
class Formula:
    """softmax(cap(scale · Q Kᵀ) + mask) V; ``precision`` is the MIL dtype of the softmax where it differs."""

    scale: float
    softcap: float = 0.0
    precision: str | None = None


@dataclass(frozen=True)
class Attended:
    """The result, and what led to it where the parts were asked for."""

    output: Var
    raw: Var | None = None
    capped: Var | None = None
    masked: Var | None = None
    weights: Var | None = None


def split_heads(node: OnnxNode, x: Var, heads: int) -> Var:
    """[batch, sequence, heads · n] as [batch, heads, sequence, n]."""
    hidden = known_dimension(x.shape[2])
    if hidden is None or hidden % heads:
        node.refuse(f"{heads} heads do not divide the hidden size {hidden}")
    parts = reshape(x, [size(x, 0), size(x, 1), heads, hidden // heads])
    return builder().transpose(x=parts, perm=[0, 2, 1, 3])


def join_heads(x: Var) -> Var:
    """[batch, heads, sequence, n] as [batch, sequence, heads · n]."""
    rows = builder().transpose(x=x, perm=[0, 2, 1, 3])
    return reshape(rows, [size(rows, 0), size(rows, 1), product([size(rows, 2), size(rows, 3)])])


def repeat_heads(x: Var, times: int) -> Var:
    """Every head ``times`` times in a row: the key and value heads of grouped queries."""
    if times == 1:
        return x
    heads = int(x.shape[1])
    parts = builder().split(x=x, num_splits=heads, axis=1) if heads > 1 else [x]
    return builder().concat(values=[part for part in parts for _ in range(times)], axis=1)


def attend(
    query: Var, key: Var, value: Var, mask: Mask, formula: Formula, *, ios: int, parts: bool = False
) -> Attended:
    """Attention with as many key heads as query heads; ``parts`` keeps the scores and weights."""
    safe, alive = guarded(mask, query)
    if ios >= _NATIVE_SINCE and not parts and _is_native(query, key, safe, formula):
        result = _native(query, key, value, safe, formula.scale)
        return Attended(result if alive is None else builder().mul(x=result, y=alive))
    return _composed(query, key, value, mask, safe, alive, formula)


def _is_native(query: Var, key: Var, mask: Mask, formula: Formula) -> bool:
    """Whether MIL's own op computes it: no cap, no other precision, a mask as wide as the keys."""
    width = _width(mask)
    return (
        not formula.softcap
        and formula.precision is None
        and known_dimension(query.shape[-1]) is not None
        and width in (None, known_dimension(key.shape[-2]))
    )


def _width(mask: Mask) -> int | None:
    found = mask.allowed if mask.bias is None else mask.bias
    return None if found is None else known_dimension(found.shape[-1])


def _native(query: Var, key: Var, value: Var, mask: Mask, scale: float) -> Var:
    mb = builder()
    factor = scale * math.sqrt(query.shape[-1])  # MIL scales by 1 / sqrt(head size)
    scaled = query if abs(factor - 1) < _EXACT else mb.mul(x=query, y=scalar(query, factor))
    found = mask.allowed if mask.bias is None else mask.bias
    given = {} if found is None else {"attn_mask": found}
    return mb.scaled_dot_product_attention(query=scaled, key=key, value=value, **given)


def _composed(
    query: Var, key: Var, value: Var, mask: Mask, safe: Mask, alive: Var | None, formula: Formula
) -> Attended:
    mb = builder()
    scaled = mb.mul(x=query, y=scalar(query, formula.scale))
    raw = mb.matmul(x=scaled, y=key, transpose_y=True)
    capped = raw
    if formula.softcap:
        bounded = mb.tanh(x=mb.real_div(x=raw, y=scalar(raw, formula.softcap)))
        capped = mb.mul(x=bounded, y=scalar(raw, formula.softcap))
    masked = capped if safe.empty else mb.add(x=capped, y=additive(safe, raw))
    weights = _softmax(masked, formula.precision)
    if alive is not None:
        weights = mb.mul(x=weights, y=alive)
    shown = masked if alive is None else mb.add(x=capped, y=additive(mask, raw))
    return Attended(mb.matmul(x=weights, y=value), raw, capped, shown, weights)


def _softmax(scores: Var, precision: str | None) -> Var:
    mb = builder()
    if precision is None:
        return mb.softmax(x=scores, axis=-1)
    wide = mb.softmax(x=mb.cast(x=scores, dtype=precision), axis=-1)
    return mb.cast(x=wide, dtype=mil_type_name(scores))


# ONNX's qk_matmul_output_mode → the part of the computation that it names.
SCORE_OUTPUTS: dict[int, Callable[[Attended], Var | None]] = {
    0: lambda attended: attended.raw,
    1: lambda attended: attended.capped,
    2: lambda attended: attended.masked,
    3: lambda attended: attended.weights,
}
