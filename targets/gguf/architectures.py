"""Which models GGUF has, and what is different about each: the order of heads, norms, limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.errors import TargetError
from edgeq.targets.language.model import read_config

Config = dict[str, Any]


@dataclass(frozen=True)
class Architecture:
    """How transformers' model of one class is written.

    ``name`` is llama.cpp's. ``paired``: its rotary embedding turns neighbours (2i, 2i + 1), where
    transformers turns (i, i + half), so rows of q and k change places. ``norm_offset``: transformers
    multiplies by 1 + weight, llama.cpp by the weight. ``activation`` of the MLP.
    """

    name: str
    paired: bool = False
    norm_offset: float = 0.0
    activation: str = "silu"


ARCHITECTURES: dict[str, Architecture] = {
    "LlamaForCausalLM": Architecture("llama", paired=True),
    # llama.cpp runs Mistral's models as Llama's.
    "MistralForCausalLM": Architecture("llama", paired=True),
    "Qwen2ForCausalLM": Architecture("qwen2"),
    "Qwen3ForCausalLM": Architecture("qwen3"),
    "GemmaForCausalLM": Architecture("gemma", norm_offset=1.0, activation="gelu_pytorch_tanh"),
    "Gemma2ForCausalLM": Architecture("gemma2", norm_offset=1.0, activation="gelu_pytorch_tanh"),
    "Gemma3ForCausalLM": Architecture("gemma3", norm_offset=1.0, activation="gelu_pytorch_tanh"),
}


def architecture_of(name: str, location: str) -> Architecture:
    """What is known of a class of transformers; raises TargetError for others."""
    found = ARCHITECTURES.get(name)
    if found is None:
        known = ", ".join(one.removesuffix("ForCausalLM") for one in ARCHITECTURES)
        raise TargetError(
            f"Target 'gguf' converts no {name or 'model without an architecture'} ({location}).",
            fix=f"It converts models of the classes {known}; for others take --target hf-gptq or vllm.",
        )
    return found


def full_config(folder: Path) -> Config:
    """``config.json`` with the defaults that it leaves out.

    Raises:
        MissingExtraError: transformers is not installed.
        ModelError: transformers does not know the model.
    """
    found: Config = read_config(folder, "gguf").to_dict()
    return found


def refuse_unsupported(config: Config, architecture: Architecture) -> None:
    """Raise for what llama.cpp would compute differently.

    Raises:
        TargetError: naming the field of ``config.json``.
    """
    activation = config.get("hidden_activation") or config.get("hidden_act")
    if activation != architecture.activation:
        raise _refusal("hidden_act", activation, f"computes {architecture.activation}")
    if config.get("partial_rotary_factor", 1.0) not in (None, 1.0):
        raise _refusal("partial_rotary_factor", config["partial_rotary_factor"], "turns whole heads")
    if architecture.name in ("qwen2", "qwen3") and config.get("use_sliding_window"):
        raise _refusal("use_sliding_window", True, "attends to all tokens")


def _refusal(field: str, value: object, computes: str) -> TargetError:
    return TargetError(
        f"The model has {field} = {value} in its config.json, and llama.cpp's model {computes}.",
        fix="Take --target hf-gptq, hf-awq or vllm.",
    )
