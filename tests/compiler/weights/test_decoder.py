"""Models of transformers run one decoder layer at a time, and folds that change nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeq.compiler.load.checkpoint import Checkpoint
from edgeq.compiler.weights.collecting import shared_inputs
from edgeq.compiler.weights.decoder import Decoder
from edgeq.compiler.weights.folding import apply_fold, find_folds
from edgeq.errors import ModelError, TargetError
from tests.support.tiny_decoders import FAMILIES, tiny_decoder

IDS = np.random.default_rng(0).integers(0, 256, (2, 24))


def _rows(checkpoint: Checkpoint) -> Any:
    return lambda name, rows: checkpoint.read(name)[rows]


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_by_layer_is_the_whole_model(tmp_path: Path, family: str) -> None:
    model = tiny_decoder(family, tmp_path)
    checkpoint = Checkpoint(tmp_path)
    decoder = Decoder(checkpoint)
    rows = _rows(checkpoint)
    with torch.inference_mode():
        hidden, calls = decoder.begin(IDS, checkpoint.float32, rows)
        for index in range(decoder.depth):
            with decoder.loaded(decoder.unit(index), checkpoint.float32):
                hidden = decoder.run(index, hidden, calls[index])
        read = decoder.end(IDS, hidden, checkpoint.float32, rows)
        seen = []
        model.get_output_embeddings().register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        model(torch.from_numpy(IDS))
    assert torch.equal(read, seen[0])
    assert all(value.is_meta for value in decoder.model.parameters() if value.dim() > 1)


def test_matrices_of_a_model(tmp_path: Path) -> None:
    tiny_decoder("mixtral", tmp_path)
    layers = {layer.name: layer for layer in Decoder(Checkpoint(tmp_path)).linear_layers()}
    assert layers["model.layers.0.block_sparse_moe.gate"].op_type == "Router"
    assert layers["model.layers.0.block_sparse_moe.experts.3.w2"].op_type == "Linear"
    assert layers["model.embed_tokens"].op_type == "Embedding"
    assert layers["lm_head"].head
    assert not layers["model.layers.0.self_attn.q_proj"].head


def test_tied_output_layer_is_the_table(tmp_path: Path) -> None:
    tiny_decoder("qwen2", tmp_path)
    decoder = Decoder(Checkpoint(tmp_path))
    assert decoder.tied
    assert decoder.head is None
    assert "lm_head" not in [layer.name for layer in decoder.linear_layers()]


def test_tensors_that_do_not_fit(tmp_path: Path) -> None:
    tiny_decoder("llama", tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 3', '"num_hidden_layers": 4'))
    with pytest.raises(ModelError, match=r"do not fit its configuration: 'model\.layers\.3.* is missing"):
        Decoder(Checkpoint(tmp_path))


def test_model_that_needs_more_than_hidden_states(tmp_path: Path) -> None:
    """Encoder-decoders and the like: refused in one sentence, whatever their layers are called."""
    tiny_decoder("llama", tmp_path)
    checkpoint = Checkpoint(tmp_path)
    decoder = Decoder(checkpoint)
    decoder.model.model.norm.forward = lambda hidden: hidden[..., :3]
    with torch.inference_mode(), pytest.raises(TargetError, match="cannot be run layer by layer"):
        decoder.end(IDS, torch.zeros(2, 24, 64), checkpoint.float32, _rows(checkpoint))


def test_model_without_decoder_layers(tmp_path: Path) -> None:
    tiny_decoder("llama", tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"LlamaForCausalLM"', '"LlamaForQuestionAnswering"'))
    with pytest.raises(ModelError, match="do not fit its configuration"):
        Decoder(Checkpoint(tmp_path))


FOLDS = {
    "llama": {"input_layernorm", "self_attn.v_proj", "post_attention_layernorm", "mlp.up_proj"},
    "gemma": {"input_layernorm", "self_attn.v_proj", "post_attention_layernorm", "mlp.up_proj"},
    "gemma2": {"input_layernorm", "self_attn.v_proj", "pre_feedforward_layernorm", "mlp.up_proj"},
    "qwen2": {"input_layernorm", "self_attn.v_proj", "post_attention_layernorm", "mlp.up_proj"},
    "mixtral": {"input_layernorm", "self_attn.v_proj"},
    "phi3": {"input_layernorm", "post_attention_layernorm"},
}


@pytest.mark.parametrize("family", FOLDS)
def test_folds_change_nothing(tmp_path: Path, family: str) -> None:
    tiny_decoder(family, tmp_path)
    checkpoint = Checkpoint(tmp_path)
    decoder = Decoder(checkpoint)
    generator = np.random.default_rng(1)
    with torch.inference_mode(), decoder.loaded(decoder.unit(1), checkpoint.float32):
        hidden, calls = decoder.begin(IDS, checkpoint.float32, _rows(checkpoint))
        layer = decoder.layer(1)
        linears = [name for name, module in layer.named_modules() if isinstance(module, torch.nn.Linear)]

        def run() -> Any:
            return decoder.run(1, hidden, calls[1])

        before = run()
        folds = find_folds(layer, shared_inputs(layer, linears, run), run)
        for fold in folds:
            inputs = layer.get_submodule(fold.readers[0]).in_features
            scales = np.exp(generator.standard_normal(inputs)).astype(np.float32)
            if fold.shared is not None:
                scales = scales[fold.shared]
            kept = layer.get_submodule(fold.readers[0]).weight.clone()
            apply_fold(layer, fold, scales)
            assert not torch.allclose(kept, layer.get_submodule(fold.readers[0]).weight)
        after = run()
    sources = {re.sub(r"experts\.\d+\.", "", fold.source) for fold in folds}
    assert {source for source in sources if source != "block_sparse_moe.w3"} == FOLDS[family]
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5 * float(before.abs().max()))
