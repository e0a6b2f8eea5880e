"""The labelled models that PyTorch runs, as modules that take arrays' tensors in order and return logits."""

from __future__ import annotations

import sys
from typing import Any

from intel_models import DATA, ROOT

# In the order of forward's arguments.
INPUTS = {
    "digits": ("image",),
    "minilm-sst2": ("input_ids", "attention_mask", "token_type_ids"),
    "books-llama": ("input_ids", "attention_mask"),
}


def module(name: str) -> Any:
    """The float32 module in evaluation mode."""
    import torch

    class Logits(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Any) -> Any:
            return self.model(**dict(zip(INPUTS[name], tensors, strict=True))).logits

    if name == "digits":
        sys.path.insert(0, str(ROOT))
        from examples.digits.network import trained

        return trained()[0].eval()
    return Logits(_pretrained(name)).eval()


def _pretrained(name: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind = AutoModelForCausalLM if name == "books-llama" else AutoModelForSequenceClassification
    model = kind.from_pretrained(DATA / "models" / name, dtype=torch.float32, local_files_only=True)
    model.config.use_cache = False
    return model
