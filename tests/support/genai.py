"""Decoders of every family that has an ONNX graph, their weights rounded, and their graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgeq.compiler.load.checkpoint import Checkpoint
from edgeq.compiler.weights.grid import GridRules
from edgeq.compiler.weights.rtn import quantize_rtn
from edgeq.compiler.weights.spec import WeightSpec
from edgeq.compiler.weights.store import WeightStore
from edgeq.targets.language.model import build_model
from edgeq.targets.language.runner import LanguageRunner
from edgeq.targets.onnxruntime_genai.architecture import read_decoder
from edgeq.targets.onnxruntime_genai.graph import decoder_model
from edgeq.targets.onnxruntime_genai.tensors import StoredTensors

SIZES = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}


def tiny_decoder(folder: Path, family: str = "Llama", **config: Any) -> Path:
    """Save a ``{family}ForCausalLM`` with random weights, norms and biases too, into ``folder``."""
    import torch
    import transformers

    torch.manual_seed(0)
    settings = getattr(transformers, f"{family}Config")(**{**SIZES, **config})
    model = getattr(transformers, f"{family}ForCausalLM")(settings)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn(value.shape) * 0.1)
    model.save_pretrained(folder)
    return folder


def rounded_store(folder: Path, spec: WeightSpec | None, place: Path) -> WeightStore:
    """Every matrix but the embedding by RTN, as ``spec`` says; None: none."""
    store = WeightStore(place, Checkpoint(folder))
    for tensor, found in store.checkpoint.tensors.items():
        name = tensor.removesuffix(".weight")
        if spec is None or len(found.shape) != 2 or "embed" in name:
            continue
        weight = quantize_rtn(store.checkpoint.float32(tensor), spec, GridRules(negative_scales=True))
        store.write(name, {name: weight}, {}, {"layers": {}})
    return store


def write_graph(store: WeightStore, folder: Path, *, full: bool = False) -> StoredTensors:
    """``model.onnx`` in ``folder``."""
    folder.mkdir()
    tensors = StoredTensors(store, full=full)
    model = decoder_model(read_decoder(store.checkpoint), tensors)
    ir.save(model, folder / "model.onnx", external_data="model.onnx.data", size_threshold_bytes=1024)
    return tensors


def reference_logits(store: WeightStore, tensors: StoredTensors, ids: np.ndarray) -> np.ndarray:
    """What transformers computes with the values of the artefact."""
    checkpoint = store.checkpoint
    names = list(checkpoint.tensors)
    model = build_model(checkpoint.path, checkpoint.architecture, names, tensors.values)
    return LanguageRunner(model, threads=1).run({"input_ids": ids})["logits"]
