"""Tiny models of the families that GGUF has, and how the tests of the target gguf compile them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeq.api import compile as compile_artefact
from edgeq.benchmarks.options import BenchOptions
from edgeq.compiler.recipe import Recipe
from edgeq.progress import SilentProgress
from edgeq.result import CompileResult
from edgeq.targets.gguf.contents import FloatWeights
from edgeq.targets.gguf.convert import Conversion
from edgeq.targets.gguf.types import FILE_TYPES
from tests.support.tiny_llama import SIZES, tiny_llama, token_ids

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def random_family(name: str, folder: Path, **config: Any) -> Path:
    """A seeded random model ``<name>ForCausalLM`` in ``folder``, in float32, without a tokenizer."""
    import torch
    import transformers

    torch.manual_seed(0)
    kind = {"Gemma3": "Gemma3Text"}.get(name, name)
    settings = getattr(transformers, f"{kind}Config")(**{**SIZES, "head_dim": 16, **config})
    model = getattr(transformers, f"{name}ForCausalLM")(settings).eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            # Norms and biases that are all alike would hide a wrong order.
            if value.dim() == 1:
                value.add_(torch.randn(value.shape) * 0.3)
            elif "embed" not in key:
                value.mul_(4)
    model.save_pretrained(folder)
    return folder


def float_file(source: Path, path: Path, file_type: str = "f32") -> Path:
    """``source`` converted to ``path``, without proofs."""
    conversion = Conversion.of(source)
    weights = FloatWeights(conversion.checkpoint)
    conversion.write(path, weights, FILE_TYPES[file_type], {}, SilentProgress())
    return path


def compile_gguf(source: Path, output: Path, file_type: str, **given: Any) -> CompileResult:
    """Compile for the target; only the size is measured. ``given``: fields of the recipe, or data."""
    calibration = given.pop("calibration", None)
    recipe = Recipe(scheme=FILE_TYPES[file_type].scheme, **given)
    return compile_artefact(
        source,
        target="gguf",
        recipe=recipe,
        target_options={"type": file_type},
        output=output,
        calibration=calibration,
        threads=1,
        force=True,
        bench=BenchOptions(parts=("size",)),
    )


__all__ = ["LLAMA3_ROPE", "compile_gguf", "float_file", "random_family", "tiny_llama", "token_ids"]
