"""The hyperparameters of a model as GGUF keys, and the factors of a rotary embedding that is scaled."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeq.compiler.weights.spec import Floats
from edgeq.errors import TargetError
from edgeq.targets.gguf.architectures import Architecture, Config

# Calls one of GGUFWriter's methods: (what follows ``add_``, its value).
Entry = tuple[str, Any]


def hyperparameters(config: Config, architecture: Architecture) -> list[Entry]:
    """What llama.cpp must know of a model besides its tensors, in a fixed order.

    Raises:
        TargetError: its rotary embedding is scaled in a way that llama.cpp has not.
    """
    heads = config["num_attention_heads"]
    head = head_size(config)
    found: list[Entry] = [
        ("vocab_size", config["vocab_size"]),
        ("context_length", context_length(config, architecture)),
        ("embedding_length", config["hidden_size"]),
        ("block_count", config["num_hidden_layers"]),
        ("feed_forward_length", config["intermediate_size"]),
        ("head_count", heads),
        ("head_count_kv", config.get("num_key_value_heads") or heads),
        ("key_length", head),
        ("value_length", head),
        ("layer_norm_rms_eps", config["rms_norm_eps"]),
        ("rope_dimension_count", head),
        ("rope_freq_base", float(_rope(config).get("rope_theta") or config.get("rope_theta") or 10000.0)),
    ]
    own = _OWN.get(architecture.name)
    return [*found, *_scaling(config), *([] if own is None else own(config))]


def context_length(config: Config, architecture: Architecture) -> int:
    """The tokens that llama.cpp reads as the model does: no more than a window that it does not know."""
    longest = int(config["max_position_embeddings"])
    window = config.get("sliding_window") if architecture.name == "llama" else None
    return min(longest, int(window)) if window else longest


def head_size(config: Config) -> int:
    """Channels of an attention head."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def rope_factors(config: Config) -> Floats | None:
    """What each frequency is divided by in Llama 3's scaling, float32 [head / 2]; None: nothing.

    From "The Llama 3 Herd of Models" as ``transformers.modeling_rope_utils`` computes it: wavelengths beyond
    the original context are stretched by ``factor``, short ones stay, and between them it is interpolated.
    """
    rope = _rope(config)
    if _kind(rope) != "llama3":
        return None
    base = float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    head = head_size(config)
    waves = 2 * math.pi * base ** (np.arange(0, head, 2, dtype=np.float64) / head)
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    smooth = (rope["original_max_position_embeddings"] / waves - low) / (high - low)
    smooth = np.clip(smooth, 0.0, 1.0)
    return np.asarray(1 / ((1 - smooth) / factor + smooth), np.float32)


def _rope(config: Config) -> Config:
    return config.get("rope_scaling") or config.get("rope_parameters") or {}


def _kind(rope: Config) -> str:
    return str(rope.get("rope_type") or rope.get("type") or "default")


def _scaling(config: Config) -> list[Entry]:
    rope = _rope(config)
    kind = _kind(rope)
    if kind in ("default", "llama3"):
        return []
    if kind not in ("linear", "yarn"):
        raise TargetError(
            f"The model's rotary embedding is scaled by {kind!r}, which edgeq does not write as GGUF.",
            fix="Take --target hf-gptq, hf-awq or vllm.",
        )
    from gguf import RopeScalingType

    found: list[Entry] = [("rope_scaling_type", RopeScalingType(kind))]
    found.append(("rope_scaling_factor", rope["factor"]))
    if kind == "yarn":
        original = rope.get("original_max_position_embeddings") or config["max_position_embeddings"]
        found.append(("rope_scaling_orig_ctx_len", original))
    return found


def _gemma2(config: Config) -> list[Entry]:
    return [
        ("attn_logit_softcapping", config["attn_logit_softcapping"]),
        ("final_logit_softcapping", config["final_logit_softcapping"]),
        ("sliding_window", config["sliding_window"]),
    ]


def _gemma3(config: Config) -> list[Entry]:
    return [("sliding_window", config["sliding_window"])]


_OWN: dict[str, Callable[[Config], list[Entry]]] = {"gemma2": _gemma2, "gemma3": _gemma3}
