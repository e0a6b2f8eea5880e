"""BERT, Llama and Qwen2 with random weights, as small as a test needs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def random_model(name: str, sizes: Mapping[str, int]) -> Any:
    """A Hugging Face model, the same every time: ``bert`` (classifies 3 classes), ``llama`` or ``qwen2``."""
    import torch
    import transformers

    torch.manual_seed(0)
    if name == "bert":
        config = transformers.BertConfig(**sizes, num_labels=3)
        return transformers.BertForSequenceClassification(config).eval()
    kinds = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    }
    config_class, model_class = kinds[name]
    return model_class(config_class(**sizes, num_key_value_heads=2)).eval()
