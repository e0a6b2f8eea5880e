"""Small Hugging Face folders, and what the target neural-compressor makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import edgeq
from edgeq.compiler.recipe import Override, Recipe
from tests.support.language_models import random_model

SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 96,
    "max_position_embeddings": 64,
}
LENGTH = 24


def source(path: Path, name: str) -> Path:
    """A ``llama`` or ``bert`` with random weights in ``path``."""
    random_model(name, SIZES).save_pretrained(path)
    return path


def tokens(count: int, name: str = "llama", seed: int = 3) -> dict[str, np.ndarray]:
    """``count`` rows of token ids, as the exported model takes them."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, SIZES["vocab_size"], (count, LENGTH), dtype=np.int64)
    arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    if name == "llama":
        return arrays | {"position_ids": np.tile(np.arange(LENGTH, dtype=np.int64), (count, 1))}
    return arrays | {"token_type_ids": np.zeros_like(ids)}


def compiled(model: Path, output: Path, method: str = "rtn", **arguments: Any) -> Any:
    """The result of compiling to INT4 weights in blocks of 32; nothing is measured.

    ``exclude``, ``override``, ``block_size``, ``symmetric_weights``: of the recipe.
    """
    overrides = [Override(match=match, precision="fp32") for match in arguments.pop("exclude", ())]
    recipe = Recipe(
        scheme="int4-weight",
        block_size=arguments.pop("block_size", 32),
        symmetric_weights=arguments.pop("symmetric_weights", True),
        overrides=tuple(overrides),
    )
    return edgeq.compile(
        str(model),
        target="neural-compressor",
        recipe=recipe,
        target_options={"method": method, **arguments.pop("target_options", {})},
        output=output,
        bench=None,
        **arguments,
    )


def closeness(outputs: dict[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
    """A metric that is 1 where the logits are the labels, and less for every other model."""
    return np.asarray(1 - np.abs(outputs["logits"] - labels).mean(-1), dtype=np.float64)
