"""Layers that serving engines join into one matrix, so that they must be stored alike."""

from __future__ import annotations

from edgeq.targets.language.format import QuantizedLayers

# vLLM, TGI and others compute these with one product (Llama, Qwen, Mistral, Gemma and their like).
_JOINED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def joined_apart(layers: QuantizedLayers) -> list[str]:
    """The first layers of those that are joined and stored differently."""
    found = []
    for name in (*layers.specs, *layers.floats):
        parent, _, last = name.rpartition(".")
        for joined in _JOINED:
            if last == joined[0]:
                kinds = {layers.specs.get(f"{parent}.{other}") for other in joined}
                found += [name] if len(kinds) > 1 else []
    return found
