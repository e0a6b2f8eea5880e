"""What of a checkpoint's configuration decides its graph, and which architectures there are graphs for.

The model builder of onnxruntime-genai 0.18 is not used: it needs a newer transformers, holds all weights in
memory, rounds by itself, and accepts unknown options in silence. The graphs here have its inputs, outputs and
kernels, which is what onnxruntime-genai asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.compiler.load.checkpoint import Checkpoint
from edgeq.errors import TargetError
from edgeq.targets.language.model import read_config

# A layer that attends to every token before it.
NO_WINDOW = -1


@dataclass(frozen=True)
class Family:
    """What an architecture computes besides what all of them do; ``kind`` is its name in onnxruntime-genai.

    ``norm_offset`` is added to the weights of every norm (Gemma stores them less 1).
    """

    kind: str
    norm_offset: float = 0.0
    scaled_embedding: bool = False


FAMILIES: Mapping[str, Family] = {
    "LlamaForCausalLM": Family("llama"),
    "MistralForCausalLM": Family("mistral"),
    "Qwen2ForCausalLM": Family("qwen2"),
    "Qwen3ForCausalLM": Family("qwen3"),
    "GemmaForCausalLM": Family("gemma", norm_offset=1.0, scaled_embedding=True),
}
# Of ``hidden_act``.
ACTIVATIONS: Mapping[str, str] = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu": "gelu",
}
# Their angles do not depend on the length of the text.
_ROPES = ("default", "linear", "llama3", "yarn")


@dataclass(frozen=True)
class DecoderSpec:
    """A decoder-only transformer; ``windows``: tokens that each layer looks back on, or :data:`NO_WINDOW`."""

    family: Family
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    context: int
    vocabulary: int
    epsilon: float
    activation: str
    tied: bool
    windows: tuple[int, ...]
    cosines: Array
    sines: Array

    @property
    def embedding_scale(self) -> float:
        """What the embeddings are multiplied by, in float32."""
        return float(np.float32(self.hidden**0.5)) if self.family.scaled_embedding else 1.0


def read_decoder(checkpoint: Checkpoint) -> DecoderSpec:
    """The architecture of ``checkpoint``.

    Raises:
        MissingExtraError: transformers is not installed.
        TargetError: there is no graph for the architecture or one of its settings.
        ModelError: its configuration cannot be read.
    """
    family = _family(checkpoint.architecture)
    config = read_config(checkpoint.path, "genai")
    activation = ACTIVATIONS.get(getattr(config, "hidden_activation", None) or config.hidden_act)
    if activation is None:
        raise _unsupported(f"the activation {config.hidden_act!r}")
    if family.kind == "gemma":
        activation = "gelu_tanh"  # whatever the configuration says: transformers' GemmaMLP
    cosines, sines = _rotations(config)
    return DecoderSpec(
        family,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_size=_head_size(config),
        context=config.max_position_embeddings,
        vocabulary=config.vocab_size,
        epsilon=config.rms_norm_eps,
        activation=activation,
        tied=bool(config.tie_word_embeddings),
        windows=_windows(config),
        cosines=cosines,
        sines=sines,
    )


def _family(architecture: str) -> Family:
    found = FAMILIES.get(architecture)
    if found is None:
        known = ", ".join(FAMILIES)
        raise TargetError(
            f"There is no ONNX graph for {architecture or 'a model without an architecture'}.",
            fix=f"The architectures of this target are: {known}.",
        )
    return found


def _head_size(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _windows(config: Any) -> tuple[int, ...]:
    size = getattr(config, "sliding_window", None)
    count = int(config.num_hidden_layers)
    if not size or not getattr(config, "use_sliding_window", True):
        return (NO_WINDOW,) * count
    types = getattr(config, "layer_types", None) or ["sliding_attention"] * count
    return tuple(int(size) if kind == "sliding_attention" else NO_WINDOW for kind in types)


def _rotations(config: Any) -> tuple[Array, Array]:
    """Cosines and sines float32 [context, head size / 2], as transformers' rotary embeddings compute them."""
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = getattr(config, "rope_scaling", None) or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in _ROPES:
        raise _unsupported(f"rotary embeddings of the type {kind!r}")
    frequencies, factor = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    if frequencies.numel() * 2 != _head_size(config):
        raise _unsupported("rotary embeddings of a part of each head")
    positions = torch.arange(config.max_position_embeddings, dtype=torch.float32)
    angles = torch.outer(positions, frequencies.float())
    return (angles.cos() * factor).numpy(), (angles.sin() * factor).numpy()


def _unsupported(what: str) -> TargetError:
    return TargetError(
        f"There is no ONNX graph for {what}.", fix="Choose another format: gguf, hf-gptq, hf-awq or vllm."
    )
