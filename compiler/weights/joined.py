"""Layers that serving engines join into one matrix, so that they must be stored alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgeq.compiler.weights.spec import WeightSpec

# vLLM, TGI and others compute these with one product (Llama, Qwen, Mistral, Gemma and their like).
_JOINED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def joined_apart(specs: Mapping[str, WeightSpec], layers: Iterable[str]) -> list[str]:
    """The first ones of the ``layers`` that are joined and stored differently, some in float perhaps."""
    found = []
    for name in layers:
        parent, _, last = name.rpartition(".")
        for joined in _JOINED:
            if last == joined[0]:
                kinds = {specs.get(f"{parent}.{other}") for other in joined}
                found += [name] if len(kinds) > 1 else []
    return found
