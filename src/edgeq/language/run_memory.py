"""How much memory a language model takes where it runs: weights, and the cache of keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeq.benchmarks.units import format_value

# A prompt and an answer of some pages; models that take less are held to what they take.
DEFAULT_CONTEXT = 4096


@dataclass(frozen=True)
class RunMemory:
    """Bytes of weights and of the cache at ``context`` tokens; the engine's own buffers come on top."""

    weights: int
    cache: int
    context: int

    @property
    def total(self) -> int:
        """Bytes of both."""
        return self.weights + self.cache

    @property
    def sentence(self) -> str:
        """``about 5.2 MB: 4.2 MB of weights, 1 MB of cache at 512 tokens``."""
        total, weights, cache = (format_value(n, "bytes") for n in (self.total, self.weights, self.cache))
        return f"about {total}: {weights} of weights and {cache} of cache at {self.context} tokens"


def longest_context(config: Mapping[str, Any]) -> int | None:
    """Tokens that the model was made for, None where its configuration does not tell."""
    found = config.get("max_position_embeddings")
    return found if isinstance(found, int) and found > 0 else None


def cache_bytes(config: Mapping[str, Any], context: int, number: int) -> int:
    """Bytes of keys and values of ``context`` tokens in all layers, ``number`` bytes each.

    Layers with a sliding window or without attention cache less: this is the most that it takes.
    """
    heads = int(config["num_attention_heads"])
    kept = int(config.get("num_key_value_heads") or heads)
    size = int(config.get("head_dim") or config["hidden_size"] // heads)
    return 2 * int(config["num_hidden_layers"]) * kept * size * context * number


def run_memory(config: Mapping[str, Any], weights: int, context: int | None, number: int) -> RunMemory:
    """The memory of a model with ``weights`` bytes; ``context`` None: :data:`DEFAULT_CONTEXT` at most."""
    tokens = context or min(longest_context(config) or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    return RunMemory(weights, cache_bytes(config, tokens, number), tokens)
