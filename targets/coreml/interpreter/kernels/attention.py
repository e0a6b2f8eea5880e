"""Kernel of MIL's attention op."""

from __future__ import annotations

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.interpreter.call import Call, Kernel


def scaled_dot_product_attention(call: Call) -> Array:
    """MIL ``scaled_dot_product_attention``: softmax(Q Kᵀ / √E + mask) V; a boolean mask picks keys."""
    query, key, value = call["query"], call["key"], call["value"]
    scores = np.matmul(query, np.swapaxes(key, -1, -2))
    scores /= np.sqrt(np.float32(query.shape[-1]))
    return np.asarray(np.matmul(_softmax(_masked(scores, call.get("attn_mask"))), value))


def _masked(scores: Array, mask: Array | None) -> Array:
    if mask is None:
        return scores
    if mask.dtype == np.bool_:
        return np.where(mask, scores, np.float32(-np.inf))
    return np.asarray(scores + mask)


def _softmax(scores: Array) -> Array:
    """Over the last axis, in place. A row without anything to attend to is NaN, as in PyTorch's formula."""
    with np.errstate(invalid="ignore"):
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
    return scores


KERNELS: dict[str, Kernel] = {"scaled_dot_product_attention": scaled_dot_product_attention}
