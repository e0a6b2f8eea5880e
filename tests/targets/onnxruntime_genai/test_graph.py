"""The graphs compute what transformers computes with the same weights, and hold exactly the store's codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeq.compiler.weights.spec import WeightSpec
from edgeq.errors import ModelError, TargetError
from edgeq.targets.onnxruntime_genai.architecture import read_decoder
from edgeq.targets.onnxruntime_genai.runner import GenaiRunner
from edgeq.targets.onnxruntime_genai.stored import StoredGraph
from tests.support.genai import reference_logits, rounded_store, tiny_decoder, write_graph

INT4 = WeightSpec(4, 32)
IDS = np.random.default_rng(1).integers(0, 128, (2, 48), dtype=np.int64)
FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("Llama", {}),
    ("Llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    ("Llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    (
        "Llama",
        {
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    (
        "Llama",
        {
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    ("Mistral", {"sliding_window": 7}),
    ("Qwen2", {"tie_word_embeddings": True}),
    ("Qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    ("Qwen3", {"head_dim": 32}),
    ("Gemma", {"tie_word_embeddings": True}),
]


@pytest.mark.parametrize(("family", "config"), FAMILIES)
def test_logits_are_those_of_transformers(family: str, config: dict[str, Any], tmp_path: Any) -> None:
    store = rounded_store(tiny_decoder(tmp_path / "model", family, **config), INT4, tmp_path / "store")
    tensors = write_graph(store, tmp_path / "onnx")
    got = GenaiRunner(tmp_path / "onnx", threads=1).run({"input_ids": IDS})["logits"]
    wanted = reference_logits(store, tensors, IDS)
    assert np.abs(got - wanted).max() <= 2e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("group", [16, 32, 64, 128, 256])
@pytest.mark.parametrize(
    ("bits", "symmetric"), [(2, True), (2, False), (4, True), (4, False), (8, True), (8, False)]
)
def test_codes_are_those_of_the_store(bits: int, symmetric: bool, group: int, tmp_path: Any) -> None:
    """64 and 96 inputs are no whole groups of 128 and 64: the last group is padded in the file."""
    folder = tiny_decoder(tmp_path / "model", num_hidden_layers=1)
    store = rounded_store(folder, WeightSpec(bits, group, symmetric), tmp_path / "store")
    tensors = write_graph(store, tmp_path / "onnx")
    graph = StoredGraph(tmp_path / "onnx")
    assert sorted(graph.layers) == sorted(store.layers)
    assert len(store.layers) == 8
    for name in store.layers:
        found, wanted = graph.weight(name), store.quantized(name)
        np.testing.assert_array_equal(found.codes, wanted.codes)
        np.testing.assert_array_equal(found.scales, wanted.scales)
        np.testing.assert_array_equal(found.dequantize(), wanted.dequantize())
    got = GenaiRunner(tmp_path / "onnx", threads=1).run({"input_ids": IDS})["logits"]
    wanted_logits = reference_logits(store, tensors, IDS)
    assert np.abs(got - wanted_logits).max() <= 2e-5 * np.abs(wanted_logits).max()


@pytest.mark.parametrize("full", [True, False])
def test_float_weights(full: bool, tmp_path: Any) -> None:
    store = rounded_store(tiny_decoder(tmp_path / "model"), None, tmp_path / "store")
    tensors = write_graph(store, tmp_path / "onnx", full=full)
    got = GenaiRunner(tmp_path / "onnx", threads=1).run({"input_ids": IDS})["logits"]
    wanted = reference_logits(store, tensors, IDS)
    assert np.abs(got - wanted).max() <= 2e-5 * np.abs(wanted).max()
    exact = np.array_equal(tensors.values("lm_head.weight"), store.float32("lm_head.weight"))
    assert exact == full


def test_weights_beyond_float16_stay_float32(tmp_path: Any) -> None:
    import safetensors.numpy as safetensors

    folder = tiny_decoder(tmp_path / "model")
    weights = safetensors.load_file(folder / "model.safetensors")
    weights["lm_head.weight"][3, 5] = 1e6
    safetensors.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    store = rounded_store(folder, None, tmp_path / "store")
    tensors = write_graph(store, tmp_path / "onnx")
    assert not tensors.is_half("lm_head.weight")
    assert tensors.is_half("model.embed_tokens.weight")
    assert tensors.values("lm_head.weight")[3, 5] == 1e6


@pytest.mark.parametrize(
    ("family", "config", "what"),
    [
        ("OPT", {"word_embed_proj_dim": 64, "ffn_dim": 96}, "OPTForCausalLM"),
        ("Llama", {"hidden_act": "relu"}, "activation 'relu'"),
        ("Llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "type 'dynamic'"),
    ],
)
def test_what_has_no_graph_is_refused(family: str, config: dict[str, Any], what: str, tmp_path: Any) -> None:
    store = rounded_store(tiny_decoder(tmp_path / "model", family, **config), None, tmp_path / "store")
    with pytest.raises(TargetError, match=what):
        read_decoder(store.checkpoint)


def test_a_tensor_without_a_place_is_refused(tmp_path: Any) -> None:
    import safetensors.numpy as safetensors

    folder = tiny_decoder(tmp_path / "model")
    weights = safetensors.load_file(folder / "model.safetensors")
    weights["model.layers.0.self_attn.sinks"] = np.zeros(4, np.float32)
    safetensors.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    store = rounded_store(folder, None, tmp_path / "store")
    with pytest.raises(TargetError, match="no place for the tensor 'model"):
        write_graph(store, tmp_path / "onnx")


@pytest.mark.parametrize("name", ["lm_head.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_a_missing_tensor_is_refused(name: str, tmp_path: Any) -> None:
    import safetensors.numpy as safetensors

    folder = tiny_decoder(tmp_path / "model")
    weights = safetensors.load_file(folder / "model.safetensors")
    del weights[name]
    safetensors.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    store = rounded_store(folder, None, tmp_path / "store")
    with pytest.raises(ModelError, match=f"has no tensor '{name}'"):
        write_graph(store, tmp_path / "onnx")
