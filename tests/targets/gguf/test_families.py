"""Every family in llama.cpp computes what transformers computes.

llama-cpp-python is compiled from source, so the extra ``dev`` has it not: without it these tests skip.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.targets.gguf.runner import LlamaRunner
from edgeq.targets.language.float_runner import open_float
from edgeq.targets.numbers import distance
from tests.support.gguf_models import LLAMA3_ROPE, float_file, random_family, token_ids

llama_cpp = pytest.importorskip("llama_cpp")

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-bias-tied": (
        "Llama",
        {"attention_bias": True, "tie_word_embeddings": True, "num_key_value_heads": 4},
    ),
    "llama3-rope": ("Llama", {"rope_scaling": LLAMA3_ROPE, "rope_theta": 500000.0}),
    "linear-rope": ("Llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    "yarn-rope": (
        "Qwen2",
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
    ),
    "head-size": ("Llama", {"head_dim": 32}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "qwen2-tied": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {}),
    "gemma": ("Gemma", {}),
    "gemma2": ("Gemma2", {"sliding_window": 16, "query_pre_attn_scalar": 16}),
    "gemma3": ("Gemma3", {"sliding_window": 16, "query_pre_attn_scalar": 16, "num_hidden_layers": 6}),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    name, config = FAMILIES[family]
    source = random_family(name, tmp_path / "source", **config)
    path = float_file(source, tmp_path / "model.gguf")
    sample = {"input_ids": token_ids(1, 48)}
    ours, theirs = LlamaRunner(path, threads=1, exact_cache=True), open_float(source, threads=1)
    found = distance([theirs.run(sample)], [ours.run(sample)])
    ours.close()
    # ggml looks Gemma's GELU up in a table of float16.
    assert found.sqnr > (60 if name.startswith("Gemma") else 80), found


def test_a_wrong_order_of_heads_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = random_family("Llama", tmp_path / "source")
    monkeypatch.setattr("edgeq.targets.gguf.tensors._heads", lambda *_: 0)
    path = float_file(source, tmp_path / "model.gguf")
    sample = {"input_ids": token_ids(1, 48)}
    ours, theirs = LlamaRunner(path, threads=1, exact_cache=True), open_float(source, threads=1)
    found = distance([theirs.run(sample)], [ours.run(sample)])
    ours.close()
    assert found.sqnr < 40, found


def test_batches_and_generation_give_the_logits_of_single_runs(tmp_path: Path) -> None:
    source = random_family("Llama", tmp_path / "source")
    runner = LlamaRunner(float_file(source, tmp_path / "model.gguf"), threads=1, exact_cache=True)
    ids = token_ids(2, 12)
    both = runner.run({"input_ids": ids})["logits"]
    one = runner.run({"input_ids": ids[1:]})["logits"][0]
    np.testing.assert_array_equal(both[1], one)
    steps = [runner.start(ids[1, :8], 4)] + [runner.step(int(token)) for token in ids[1, 8:]]
    runner.close()
    np.testing.assert_allclose(np.stack(steps), one[7:], atol=2e-4)
