"""BERT and Llama with random weights from Hugging Face folders: integer weights that fused kernels read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeq
from edgeq.calibration.types import Array
from edgeq.targets.onnxruntime.runner import OnnxRuntimeRunner
from edgeq.targets.tensorrt.files import QDQ_MODEL
from tests.support.language_models import random_model
from tests.support.tensorrt import needs_rtx
from tests.support.weight_models import sqnr

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("optimum.exporters.onnx")

pytestmark = needs_rtx

VOCABULARY, LONGEST, SHOWN = 256, 4096, 14
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 512, "max_position_embeddings": LONGEST}  # fmt: skip
# Weights of products and tables: per layer 6 of BERT, 7 of Llama; 3 tables, pooler and classifier of BERT;
# one table and the head of Llama.
WEIGHTS = {"bert": 2 * 6 + 5, "llama": 2 * 7 + 2}


@pytest.fixture(scope="module", params=["bert", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / request.param
    random_model(request.param, SIZES).save_pretrained(path)
    return Path(path)


def _inputs(first: int) -> dict[str, Array]:
    """Random tokens, the first of them hidden as padding is, at positions from ``first`` on."""
    rng = np.random.default_rng(0)
    return {
        "input_ids": rng.integers(0, VOCABULARY, (1, 16)),
        "attention_mask": (np.arange(16) >= 16 - SHOWN).astype(np.int64)[None],
        "token_type_ids": np.zeros((1, 16), np.int64),
        "position_ids": np.arange(first, first + 16)[None],
    }


def _logits(model: Path, first: int) -> Array:
    """What the model computes, padded places left out."""
    with OnnxRuntimeRunner(model, threads=1, in_float=True) as runner:
        known = _inputs(first)
        found = runner.run({port.name: known[port.name] for port in runner.inputs})["logits"]
    return found if found.ndim == 2 else found[:, -SHOWN:]


def _wanted(name: str, first: int) -> Array:
    known = {key: torch.from_numpy(values) for key, values in _inputs(first).items()}
    unread = "position_ids" if name == "bert" else "token_type_ids"
    with torch.no_grad():
        found = random_model(name, SIZES)(
            **{key: value for key, value in known.items() if key != unread}
        ).logits.numpy()
    return np.asarray(found if found.ndim == 2 else found[:, -SHOWN:])


def _compile(folder: Path, output: Path, **recipe: Any) -> edgeq.CompileResult:
    options = {"sm": "86", "dimension.sequence_length": "1..64@16", "dimension.batch_size": "1"}
    made = edgeq.Recipe(**recipe)
    return edgeq.compile(
        folder, target="tensorrt", recipe=made, target_options=options, output=output, bench=None, threads=1
    )


@pytest.mark.parametrize(("folder", "block"), [("bert", 128), ("llama", 64)], indirect=["folder"])
def test_fused_kernels_read_int4(folder: Path, tmp_path: Path, block: int) -> None:
    result = _compile(folder, tmp_path / "out", scheme="int4-weight", block_size=block)
    asked = [node.actual for node in result.nodes if node.asked]
    # BERT's classifier has 3 outputs: an odd number gets INT8.
    odd = {"bert": 1, "llama": 0}[folder.name]
    assert (asked.count("int4"), asked.count("int8-weight")) == (WEIGHTS[folder.name] - odd, odd)
    assert not result.manifest.missed
    assert sqnr(_wanted(folder.name, 0), _logits(result.folder / QDQ_MODEL, 0)) > 10


@pytest.mark.parametrize("folder", ["llama"], indirect=True)
def test_float16_keeps_positions_and_masks(folder: Path, tmp_path: Path) -> None:
    """In float16 the angle of position 4095 would be off by two radians, and a hidden query would be NaN."""
    result = _compile(folder, tmp_path / "out", scheme="fp16")
    for first in (0, LONGEST - 16):
        assert sqnr(_wanted("llama", first), _logits(result.folder / QDQ_MODEL, first)) > 50
