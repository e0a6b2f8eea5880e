"""Whole checkpoints through every method, killed and resumed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeq
from edgeq.building import WORK
from edgeq.compiler.load.checkpoint import Checkpoint, load_checkpoint
from edgeq.compiler.quantize.dispatch import Request
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.recipe import Override, Recipe
from edgeq.compiler.weights.diagnosis import diagnose
from edgeq.compiler.weights.layerwise import quantize_checkpoint
from edgeq.compiler.weights.store import WeightStore
from edgeq.errors import DataError
from edgeq.manifest import Manifest
from edgeq.progress import SilentProgress
from edgeq.sources import DataOpener
from edgeq.targets.capabilities import Capabilities, WeightRules
from tests.support.tiny_decoders import tiny_decoder
from tests.support.tiny_llama import tiny_llama, token_ids

RULES = WeightRules(bits=(4, 8), group_sizes=(-1, 32), group_size=32, mixed=True, head=True, embeddings=True)
IDS = {"input_ids": token_ids(12, 48)}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"), num_hidden_layers=3)


def quantized(
    folder: Path, work: Path, method: str, rules: WeightRules = RULES, ids: Any = IDS, **fields: Any
) -> Quantized:
    model = load_checkpoint(folder, SilentProgress())
    recipe = Recipe(scheme="int4-weight", weight_method=method, **fields)
    data = DataOpener(model.inputs, model.source, None, None).open(ids)
    capabilities = Capabilities("test", ("int4-weight",), weights=rules)
    return quantize_checkpoint(Request(model, capabilities, recipe, data, 1, SilentProgress()), work)


def store_of(found: Quantized) -> WeightStore:
    assert found.weights is not None
    return found.weights


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("method", ["rtn", "gptq", "awq"])
def test_every_planned_layer_is_stored(llama: Path, tmp_path: Path, method: str) -> None:
    found = quantized(llama, tmp_path, method)
    store = store_of(found)
    assert set(store.layers) == {name for name, node in found.plan.nodes.items() if node.asked}
    assert len(store.layers) == 3 * 7 + 2
    assert not list(store.folder.glob("hidden-*"))
    for name in store.layers:
        weight = store.checkpoint.float32(f"{name}.weight")
        values = store.quantized(name).dequantize()
        assert np.linalg.norm(values - weight) < np.linalg.norm(weight)


def test_records_name_errors_and_damping(llama: Path, tmp_path: Path) -> None:
    store = store_of(quantized(llama, tmp_path, "gptq", damping=0.02))
    records = {n: known for record in store.records.values() for n, known in record["layers"].items()}
    calibrated = {name: known for name, known in records.items() if name != "model.embed_tokens"}
    assert len(calibrated) == 3 * 7 + 1
    assert all(0 < known["error"] < 0.2 and known["damping"] >= 0.02 for known in calibrated.values())


def test_methods_beat_rounding_on_the_models_output(llama: Path, tmp_path: Path) -> None:
    import torch

    from edgeq.targets.language.model import build_model

    def logits(read: Any) -> Any:
        checkpoint = Checkpoint(llama)
        model = build_model(llama, checkpoint.architecture, list(checkpoint.tensors), read)
        with torch.inference_mode():
            return model(torch.from_numpy(token_ids(4, 48, seed=3))).logits.log_softmax(-1)

    exact = logits(Checkpoint(llama).read)
    divergence = {}
    for method in ("rtn", "gptq", "awq"):
        found = logits(store_of(quantized(llama, tmp_path / method, method)).float32)
        divergence[method] = float((exact.exp() * (exact - found)).sum(-1).mean())
    assert divergence["gptq"] < divergence["rtn"]
    assert divergence["awq"] < 1.1 * divergence["rtn"]


def test_overrides_mix_bits(llama: Path, tmp_path: Path) -> None:
    overrides = (
        Override(match="*.layers.0.mlp.down_proj", precision="int8"),
        Override(match="*.layers.1.*", precision="fp16"),
    )
    store = store_of(quantized(llama, tmp_path, "gptq", overrides=overrides))
    spec = store.spec("model.layers.0.mlp.down_proj")
    assert spec is not None
    assert spec.bits == 8
    assert not [name for name in store.layers if ".layers.1." in name]


def test_scaled_tensors_are_rewritten(tmp_path: Path) -> None:
    """Readers that stay float are scaled too, and so are biases of what makes their inputs."""
    folder = tmp_path / "qwen2"
    tiny_decoder("qwen2", folder)
    overrides = (Override(match="*.q_proj", precision="fp16"),)
    store = store_of(quantized(folder, tmp_path / "work", "awq", overrides=overrides))
    record = store.records["model.layers.0"]
    changed = {
        name
        for name in store.checkpoint.tensors
        if store.spec(name.removesuffix(".weight")) is None
        and not np.array_equal(store.float32(name), store.checkpoint.float32(name))
    }
    if "self_attn.q_proj" in record.get("scaled", {}):
        assert "model.layers.0.self_attn.q_proj.weight" in changed
        assert "model.layers.0.input_layernorm.weight" in changed
    assert record["scaled"]


def test_layers_that_no_token_reaches(tmp_path: Path) -> None:
    folder = tmp_path / "mixtral"
    tiny_decoder("mixtral", folder)
    found = quantized(folder, tmp_path / "work", "gptq", ids={"input_ids": np.zeros((1, 1), np.int64)})
    assert any("the calibration data never reaches it" in note for note in found.notes)
    assert "model.layers.0.block_sparse_moe.gate" not in store_of(found).layers


def test_methods_that_learn_need_text(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'gptq' needs calibration text"):
        quantized(llama, tmp_path, "gptq", ids=None)
    with pytest.raises(DataError, match="'awq' needs calibration text"):
        edgeq.compile(
            llama,
            target="hf-gptq",
            recipe=Recipe(scheme="int4-weight", weight_method="awq"),
            output=tmp_path / "a",
        )


def test_formats_with_the_same_rules_share_their_work(llama: Path, tmp_path: Path) -> None:
    first = store_of(quantized(llama, tmp_path, "rtn"))
    assert store_of(quantized(llama, tmp_path, "rtn", ids=None)).folder == first.folder
    others = [
        quantized(llama, tmp_path, "rtn", block_size=-1),
        quantized(llama, tmp_path, "gptq"),
        quantized(llama, tmp_path, "gptq", calibration_samples=3),
        quantized(llama, tmp_path, "gptq", act_order=False),
        quantized(llama, tmp_path, "rtn", rules=WeightRules((4,), (32,), 32, negative_scales=True)),
    ]
    folders = {store_of(found).folder for found in others}
    assert len(folders) == 5
    assert first.folder not in folders


_KILLED = """
import os, signal, sys
from pathlib import Path
from edgeq.compiler.weights.store import WeightStore
written = WeightStore.write
def write(self, unit, *rest):
    written(self, unit, *rest)
    if unit == "model.layers.1":
        os.kill(os.getpid(), signal.SIGKILL)
WeightStore.write = write
from tests.compiler.weights.test_layerwise import quantized
quantized(Path(sys.argv[1]), Path(sys.argv[2]), "gptq")
"""


def test_killed_run_goes_on(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = tmp_path / "killed"
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(llama), str(killed)], cwd=root, check=False, capture_output=True
    )
    assert done.returncode == -9, done.stderr.decode()
    (folder,) = killed.iterdir()
    assert (folder / "hidden-2.f32").is_file()
    written: list[str] = []
    write = WeightStore.write

    def note(self: WeightStore, unit: str, *rest: Any) -> None:
        written.append(unit)
        write(self, unit, *rest)

    monkeypatch.setattr(WeightStore, "write", note)
    resumed = store_of(quantized(llama, killed, "gptq"))
    assert written == ["model.layers.2", "head"]
    whole = store_of(quantized(llama, tmp_path / "whole", "gptq"))
    assert contents(resumed.folder) == contents(whole.folder)


@pytest.mark.parametrize("damage", ["record", "weights", "states", "specs"])
def test_damaged_work_starts_anew(llama: Path, tmp_path: Path, damage: str) -> None:
    store = store_of(quantized(llama, tmp_path, "gptq"))
    wanted = contents(store.folder)
    for unit in ("head", "model.layers.2"):
        (store.folder / f"{unit}.json").unlink()
    record = store.folder / "model.layers.1.json"
    if damage == "record":
        record.write_text("{")
    elif damage == "weights":
        weights = record.with_suffix(".safetensors")
        weights.write_bytes(weights.read_bytes()[:-8])
    elif damage == "specs":
        content = json.loads(record.read_text())
        next(iter(content["specs"].values()))["bits"] = 8
        record.write_text(json.dumps(content))
    assert contents(store_of(quantized(llama, tmp_path, "gptq")).folder) == wanted


def test_work_goes_when_the_artefact_is_in_place(llama: Path, tmp_path: Path) -> None:
    recipe = Recipe(scheme="int4-weight", weight_method="gptq", block_size=32)
    found = edgeq.compile(
        llama, target="hf-gptq", recipe=recipe, calibration=IDS, output=tmp_path / "a", bench=None
    )
    assert found.folder.is_dir()
    assert not (tmp_path / WORK).exists()
    diagnosis = found.manifest.diagnosis
    assert diagnosis is not None
    assert [layer.layer for layer in diagnosis.layers] == [
        n.name for n in found.nodes if n.asked and n.planned == "int4"
    ]
    page = (found.folder / "report.html").read_text()
    assert "What quantizing has cost, layer by layer" in page
    assert Manifest.read(found.folder).diagnosis == diagnosis


def test_a_layer_that_suffers_is_recommended(llama: Path, tmp_path: Path) -> None:
    store = store_of(quantized(llama, tmp_path, "gptq"))
    bad = "model.layers.1.self_attn.k_proj"
    store.records["model.layers.1"]["layers"][bad]["error"] = 0.5
    found = diagnose(store)
    assert found is not None
    assert found.overrides[0] == f"{bad}=int8"
    assert max(found.layers, key=lambda layer: layer.gain or 0).layer == bad
    assert diagnose(store_of(quantized(llama, tmp_path, "rtn"))) is None
