"""BERT and Llama with random weights, as small as a test needs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def random_model(name: str, sizes: Mapping[str, int]) -> Any:
    """A Hugging Face model: ``bert`` (a classifier of 3 classes) or ``llama``; the same every time."""
    import torch
    import transformers

    torch.manual_seed(0)
    if name == "bert":
        config = transformers.BertConfig(**sizes, num_labels=3)
        return transformers.BertForSequenceClassification(config).eval()
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, num_key_value_heads=2)).eval()
