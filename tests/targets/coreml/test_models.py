"""BERT and Llama with random weights from Hugging Face folders, with sequences of several lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgeq
from edgeq.calibration.types import Array
from edgeq.targets.coreml.runner import InterpreterRunner
from edgeq.targets.coreml.verification.contents import package_contents
from tests.support.coreml_artefacts import PACKAGE
from tests.support.language_models import random_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("optimum.exporters.onnx")

VOCABULARY, LONGEST = 256, 2048
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 128, "max_position_embeddings": LONGEST}  # fmt: skip
# Model → weights of products and tables: per layer 6 of BERT, 7 of Llama; 3 tables, pooler and classifier of
# BERT (its token types and 3 classes are too small for blocks of 32); one table and the head of Llama.
WEIGHTS = {"bert": 2 * 6 + 5, "llama": 2 * 7 + 2}
STORED = {"fp16": "float16", "int8-weight": "int8", "int4-weight": "int4"}


@pytest.fixture(scope="module", params=["bert", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / request.param
    random_model(request.param, SIZES).save_pretrained(path)
    return Path(path)


def _compile(folder: Path, scheme: str, output: Path, length: str = "1..2048") -> edgeq.CompileResult:
    sizes = {"dimension.sequence_length": length, "dimension.batch_size": "1"}
    return edgeq.compile(
        folder, target="coreml", scheme=scheme, target_options=sizes, output=output, bench=None, threads=1
    )


def _inputs(runner: InterpreterRunner, length: int, first: int = 0) -> dict[str, Array]:
    """Random tokens, the last of them hidden, at positions from ``first`` on."""
    rng = np.random.default_rng(length)
    known = {
        "input_ids": rng.integers(0, VOCABULARY, (1, length)),
        "attention_mask": (np.arange(length) < max(1, length - 2)).astype(np.int64)[None],
        "token_type_ids": np.zeros((1, length), np.int64),
        "position_ids": np.arange(first, first + length)[None],
    }
    return {port.name: known[port.name] for port in runner.inputs}


def _decibel(wanted: Array, found: Array) -> float:
    return float(10 * np.log10(np.square(wanted).sum() / np.square(wanted - found).sum()))


def _wanted(name: str, inputs: dict[str, Array]) -> Array:
    with torch.no_grad():
        tensors = {key: torch.from_numpy(values) for key, values in inputs.items()}
        return np.asarray(random_model(name, SIZES)(**tensors).logits.numpy())


@pytest.mark.parametrize("scheme", STORED)
def test_schemes_and_lengths(folder: Path, scheme: str, tmp_path: Path) -> None:
    result = _compile(folder, scheme, tmp_path / "out", "1..64")
    package, name = result.folder / PACKAGE, folder.name
    stored = {kind: found.tensors for kind, found in package_contents(package).weights.items()}
    quantized = stored.get("int8", 0) + stored.get("int4", 0)
    if scheme != "fp16":
        assert quantized == WEIGHTS[name]
        assert stored[STORED[scheme]] >= WEIGHTS[name] - 1
    else:
        assert quantized == 0
    assert "float32" not in stored
    assert not result.manifest.missed
    # 4 bits of random weights leave 20 dB
    limit = {"fp16": 45, "int8-weight": 30, "int4-weight": 10}[scheme]
    with InterpreterRunner(package) as runner:
        for length in (5, 48):
            inputs = _inputs(runner, length)
            shown = np.s_[:, : length - 2] if name == "llama" else np.s_[:]
            found = next(iter(runner.run(inputs).values()))
            assert _decibel(_wanted(name, inputs)[shown], found[shown]) > limit


@pytest.mark.parametrize("folder", ["llama"], indirect=True)
def test_positions_up_to_the_last(folder: Path, tmp_path: Path) -> None:
    """In float16 the angle of position 2047 would be off by up to half a radian."""
    result = _compile(folder, "fp16", tmp_path / "out", "24")
    with InterpreterRunner(result.folder / PACKAGE) as runner:
        inputs = _inputs(runner, 24, LONGEST - 24)
        found = runner.run(inputs)["logits"]
    shown = np.s_[:, :22]
    assert _decibel(_wanted("llama", inputs)[shown], found[shown]) > 50
