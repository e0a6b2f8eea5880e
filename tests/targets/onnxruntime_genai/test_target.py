"""Whole artefacts: compiled, run by onnxruntime-genai and ONNX Runtime, damaged, and verified again."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeq
from edgeq.compiler.recipe import Override, Recipe
from edgeq.errors import DataError, ModelError, TargetError
from edgeq.manifest import Manifest
from edgeq.targets.base import GeneratingRunner
from edgeq.targets.language.float_runner import open_float
from edgeq.targets.onnxruntime_genai.gate import difference
from edgeq.targets.onnxruntime_genai.runner import GenaiRunner
from edgeq.targets.onnxruntime_genai.stored import StoredGraph
from edgeq.targets.registry import get_target
from edgeq.verify import verify
from tests.support.tiny_llama import tiny_llama, token_ids

TARGET = "onnxruntime-genai"
DATA = {"input_ids": token_ids(4, 32)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("genai") / "model")


@pytest.fixture(scope="module")
def artefact(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _compile(model, tmp_path_factory.mktemp("genai") / "int4").folder


def _compile(model: Path, place: Path, *, calibration: Any = None, **recipe: Any) -> Any:
    return edgeq.compile(
        model,
        target=TARGET,
        recipe=Recipe(**{"scheme": "int4-weight", **recipe}),
        calibration=calibration,
        output=place,
        bench=None,
        threads=1,
    )


def test_onnxruntime_genai_generates_with_its_own_tokenizer(artefact: Path) -> None:
    import onnxruntime_genai as og

    loaded = og.Model(str(artefact))
    tokenizer = og.Tokenizer(loaded)
    prompt = tokenizer.encode("The quick brown fox")
    parameters = og.GeneratorParams(loaded)
    parameters.set_search_options(max_length=len(prompt) + 6, min_length=len(prompt) + 6)
    generator = og.Generator(loaded, parameters)
    generator.append_tokens(prompt)
    while not generator.is_done():
        generator.generate_next_token()
    made = generator.get_sequence(0)
    assert len(made) == len(prompt) + 6
    assert tokenizer.decode(made).startswith("The quick brown fox")


def test_every_layer_has_a_kernel_of_4_bits(artefact: Path) -> None:
    nodes = Manifest.read(artefact).nodes
    asked = [node for node in nodes if node.asked]
    assert len(asked) == 15  # 7 of each layer, and the head
    assert {node.actual for node in asked} == {"int4"}
    assert all("MatMulNBits (4 bits, block 32, float activations)" in node.kernel for node in asked)


def test_token_by_token_is_what_whole_windows_are(artefact: Path) -> None:
    runner = GenaiRunner(artefact, threads=1)
    assert isinstance(runner, GeneratingRunner)
    ids = token_ids(1, 24, seed=3)
    whole = runner.run({"input_ids": ids})["logits"][0]
    got = [runner.start(ids[0, :10], 14)]
    got += [runner.step(int(token)) for token in ids[0, 10:]]
    np.testing.assert_allclose(np.stack(got), whole[9:], atol=1e-4 * np.abs(whole).max())
    again = runner.run({"input_ids": ids})["logits"][0]
    np.testing.assert_array_equal(again, whole)
    runner.close()
    with pytest.raises(TargetError, match="closed"):
        runner.run({"input_ids": ids})
    with pytest.raises(TargetError, match="closed"):
        runner.start(ids[0], 1)


def test_steps_need_a_start(artefact: Path) -> None:
    with pytest.raises(TargetError, match="No text was started"):
        GenaiRunner(artefact).step(1)


def test_greedy_generation_is_that_of_transformers(model: Path, tmp_path: Path) -> None:
    folder = _compile(model, tmp_path / "full", scheme="fp32").folder
    prompt = token_ids(1, 12, seed=5)[0]
    made = GenaiRunner(folder, threads=1).generate(prompt, 8)
    reference, wanted = open_float(model, threads=1), list(prompt)
    for _ in range(8):
        logits = reference.run({"input_ids": np.array([wanted])})["logits"][0, -1]
        wanted.append(int(logits.argmax()))
    assert list(made) == wanted[12:]


def test_the_same_bytes_when_compiled_again(model: Path, artefact: Path, tmp_path: Path) -> None:
    other = _compile(model, tmp_path / "int4").folder
    for file in sorted(artefact.iterdir()):
        if file.name not in ("edgeq.json", "report.html"):
            assert file.read_bytes() == (other / file.name).read_bytes(), file.name


def test_mixed_bits_and_float_layers(model: Path, tmp_path: Path) -> None:
    overrides = (
        Override(match="*.down_proj", precision="int8"),
        Override(match="lm_head", precision="fp16"),
    )
    found = _compile(model, tmp_path / "mixed", overrides=overrides, symmetric_weights=False, block_size=64)
    graph = StoredGraph(found.folder)
    bits = {name: graph.weight(name).spec.bits for name in graph.layers}
    assert {b for name, b in bits.items() if name.endswith("down_proj")} == {8}
    assert {b for name, b in bits.items() if not name.endswith("down_proj")} == {4}
    assert "lm_head" not in bits
    assert all(check.passed for check in found.manifest.checks)


@pytest.mark.parametrize("scheme", ["fp16", "int8-weight"])
def test_other_schemes(model: Path, tmp_path: Path, scheme: str) -> None:
    found = _compile(model, tmp_path / scheme, scheme=scheme)
    weights = ["weights"] if scheme == "int8-weight" else []
    assert [check.name for check in found.manifest.checks] == [*weights, "float32 numbers", "generation"]
    assert any("no fast kernel" in note for note in found.manifest.notes) == (scheme == "int8-weight")
    assert all(check.passed for check in found.manifest.checks)


def test_level_4_where_activations_have_no_outliers(model: Path, tmp_path: Path) -> None:
    found = _compile(model, tmp_path / "level4", accuracy_level=4, calibration=DATA)
    assert found.manifest.load_hints["accuracy_level"] == 4
    assert found.manifest.checks[0].name == "accuracy level 4"
    assert found.manifest.checks[0].passed
    assert all("int8 activations" in node.kernel for node in found.manifest.nodes if node.asked)
    assert all(check.passed for check in found.manifest.checks)


def test_level_4_gives_way_where_it_changes_predictions(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "outliers"
    shutil.copytree(model, folder)
    _add_outliers(folder)
    found = _compile(folder, tmp_path / "level4", accuracy_level=4, calibration=DATA)
    assert found.manifest.load_hints["accuracy_level"] == 0
    assert any(note.startswith("Accuracy level 0 in place of 4: KL") for note in found.manifest.notes)
    assert not any("int8 activations" in node.kernel for node in found.manifest.nodes)
    assert not (found.folder / "level4.onnx").exists()


def _add_outliers(folder: Path) -> None:
    """One channel in 32 of every norm is 300 times as large, and read 300 times less: float results stay."""
    import safetensors.numpy as safetensors

    weights = safetensors.load_file(folder / "model.safetensors")
    for name, value in weights.items():
        if name.endswith("norm.weight"):
            value[::32] *= 300
        elif name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight", "gate_proj.weight")) or (
            name.endswith("up_proj.weight") or name == "lm_head.weight"
        ):
            value[:, ::32] /= 300
    safetensors.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_level_4_needs_data(model: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="judged against level 0"):
        _compile(model, tmp_path / "level4", accuracy_level=4)


def test_differences_of_logits() -> None:
    logits = np.log(np.array([[[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]]], np.float32))
    same = difference([(logits, logits + 3)])
    assert same.kl == pytest.approx(0, abs=1e-6)
    assert same.flipped == 0
    assert same.tokens == 2
    other = difference([(logits, logits[..., ::-1])])
    wanted = (0.7 - 0.1) * np.log(7) + (0.1 - 0.3) * np.log(1 / 3)
    assert other.kl == pytest.approx(wanted / 2, rel=1e-5)
    assert other.flipped == 0.5
    assert not difference([(logits, logits * np.nan)]).allowed


def test_verified_again(artefact: Path) -> None:
    found = verify(artefact, threads=1)
    assert found.passed, [check for check in found.checks if not check.passed]


def test_other_codes_are_found(artefact: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(artefact, damaged)
    graph = StoredGraph(damaged)
    codes = next(n for n in graph.model.graph if n.op_type == "MatMulNBits").inputs[1].const_value
    place = damaged / "model.onnx.data"
    data = bytearray(place.read_bytes())
    data[codes.offset] ^= 1
    place.write_bytes(data)
    checks = {check.name: check for check in get_target(TARGET).check(damaged)}
    assert not checks["weights"].passed
    assert "q_proj" in checks["weights"].found


@pytest.mark.parametrize(
    ("file", "content", "error"),
    [
        ("model.onnx", b"", TargetError),
        ("model.onnx", b"nonsense", ModelError),
        ("model.onnx.data", b"", (ModelError, TargetError)),
        ("edgeq-genai.json", b"{}", ModelError),
        ("genai_config.json", b"{", TargetError),
    ],
)
def test_damaged_files_are_refused(
    artefact: Path, tmp_path: Path, file: str, content: bytes, error: Any
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(artefact, damaged)
    (damaged / file).write_bytes(content)
    with pytest.raises(error):
        get_target(TARGET).check(damaged)


def test_a_missing_library_is_one_sentence(artefact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_genai", None)
    with pytest.raises(TargetError, match=r"pip install 'edgeq\[genai\]'"):
        GenaiRunner(artefact).start(np.array([1, 2]), 2)


def test_the_configuration_is_that_of_the_checkpoint(model: Path, artefact: Path) -> None:
    config = json.loads((artefact / "genai_config.json").read_text())
    assert config["model"]["type"] == "llama"
    assert config["model"]["context_length"] == 256
    assert config["model"]["eos_token_id"] == json.loads((model / "config.json").read_text())["eos_token_id"]
    assert (artefact / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()
