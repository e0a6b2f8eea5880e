"""W8A8 with SmoothQuant: activation outliers are taken out, and the reload computes what edgeq meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgeq.compiler.load.checkpoint import Checkpoint
from edgeq.errors import DataError, EdgeqError, TargetError, UsageError
from edgeq.result import CompileResult
from edgeq.targets.language.model import build_model
from edgeq.targets.language.runner import LanguageRunner
from edgeq.targets.language.stored import StoredFolder
from tests.support.checkpoint_folders import IDS, compiled, digests, logits_of, passed
from tests.support.tiny_decoders import tiny_decoder
from tests.support.tiny_llama import tiny_llama, token_ids

pytest.importorskip("compressed_tensors")

TEXT = {"input_ids": token_ids(16, 48, seed=1)}
LOUD = [3, 30, 51]
READERS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("plain"), dtype="float32")


@pytest.fixture(scope="module")
def planted(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same function with loud channels: norms have them 50 times as large, their readers as small."""
    folder = tiny_llama(tmp_path_factory.mktemp("planted"), dtype="float32")
    tensors = load_file(folder / "model.safetensors")
    for layer in range(2):
        for norm, readers in READERS.items():
            tensors[f"model.layers.{layer}.{norm}.weight"][LOUD] *= 50
            for reader in readers:
                tensors[f"model.layers.{layer}.{reader}.weight"][:, LOUD] /= 50
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    np.testing.assert_allclose(exact(folder), exact(plain), rtol=1e-3, atol=1e-4)
    return folder


@pytest.fixture(scope="module")
def smoothed(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> CompileResult:
    return smoothquant(planted, tmp_path_factory.mktemp("smoothed") / "a")


def smoothquant(model: Path, output: Path, **arguments: Any) -> CompileResult:
    return compiled(
        model, output, "vllm", "int8-dynamic", weight_method="smoothquant", calibration=TEXT, **arguments
    )


def exact(model: Path) -> np.ndarray:
    checkpoint = Checkpoint(model)
    module = build_model(model, checkpoint.architecture, list(checkpoint.tensors), checkpoint.float32)
    return LanguageRunner(module, threads=1).run({"input_ids": IDS})["logits"]


def noise(result: CompileResult, model: Path) -> float:
    """The squared error of the logits divided by their square sum."""
    wanted = exact(model)
    return float(np.square(logits_of(result, IDS) - wanted).sum() / np.square(wanted).sum())


def test_loud_channels_cost_nothing(
    plain: Path, planted: Path, smoothed: CompileResult, tmp_path: Path
) -> None:
    quiet = noise(compiled(plain, tmp_path / "quiet", "vllm", "int8-dynamic"), plain)
    loud = noise(compiled(planted, tmp_path / "loud", "vllm", "int8-dynamic"), planted)
    assert loud > 10 * quiet
    assert noise(smoothed, planted) < 1.5 * quiet


def test_the_reload_is_what_was_meant(smoothed: CompileResult, planted: Path) -> None:
    assert passed(smoothed)
    assert {check.name for check in smoothed.manifest.checks} == {"weights", "int8 numbers"}
    norm = "model.layers.0.input_layernorm.weight"
    before = Checkpoint(planted).float32(norm)
    after = StoredFolder(smoothed.folder).array(norm).astype(np.float32)
    assert (before / after)[LOUD].min() > 3 * np.median(before / after)


def test_it_is_told(smoothed: CompileResult) -> None:
    manifest = smoothed.manifest
    assert manifest.diagnosis is not None
    strengths = {layer.layer: layer.smoothing for layer in manifest.diagnosis.layers}
    assert strengths["model.layers.0.self_attn.q_proj"] == strengths["model.layers.0.self_attn.v_proj"]
    assert all(strength is not None and 0 <= strength < 1 for strength in strengths.values())
    strength = strengths["model.layers.1.mlp.up_proj"]
    assert strength
    (reason,) = (node.reason for node in manifest.nodes if node.name == "model.layers.1.mlp.up_proj")
    assert reason.endswith(
        f"inputs smoothed in model.layers.1.post_attention_layernorm, migration strength {strength:g}"
    )
    (note,) = (note for note in manifest.notes if note.startswith("SmoothQuant"))
    assert "of 14 layers are smoothed (migration strength 0." in note
    assert '<th class="n">smoothing</th>' in (smoothed.folder / "report.html").read_text()


def test_same_bytes(smoothed: CompileResult, planted: Path, tmp_path: Path) -> None:
    assert digests(smoothquant(planted, tmp_path / "b").folder) == digests(smoothed.folder)


def test_biases_are_divided_too(tmp_path: Path) -> None:
    tiny_decoder("qwen2", tmp_path / "qwen2")
    result = smoothquant(tmp_path / "qwen2", tmp_path / "a")
    assert passed(result)
    assert noise(result, tmp_path / "qwen2") < 1e-3
    name = "model.layers.0.self_attn.v_proj.bias"
    before = Checkpoint(tmp_path / "qwen2").float32(name)
    assert not np.allclose(before, StoredFolder(result.folder).array(name), rtol=1e-2)


@pytest.mark.parametrize(
    ("target", "scheme", "fields", "error", "said"),
    [
        (
            "vllm",
            "int8-dynamic",
            {"weight_method": "gptq"},
            TargetError,
            "Target 'vllm' does not take weights of the method 'gptq' with scheme 'int8-dynamic'. "
            "It takes: rtn, smoothquant.",
        ),
        (
            "vllm",
            "int8-weight",
            {"weight_method": "smoothquant"},
            TargetError,
            "Target 'vllm' does not take weights of the method 'smoothquant' with scheme 'int8-weight'. "
            "It takes: rtn, gptq, awq.",
        ),
        (
            "hf-gptq",
            "int4-weight",
            {"weight_method": "smoothquant"},
            TargetError,
            "Target 'hf-gptq' does not take weights of the method 'smoothquant'. It takes: rtn, gptq, awq.",
        ),
        (
            "vllm",
            "int8-dynamic",
            {"weight_method": "smoothquant"},
            DataError,
            "The method 'smoothquant' needs calibration text and none was given. Give representative text "
            "with --calibration, or choose the method rtn, which needs none.",
        ),
        (
            "vllm",
            "int8-dynamic",
            {"calibration_samples": 8},
            UsageError,
            "The option calibration_samples = 8 has no effect on target 'vllm' with scheme 'int8-dynamic': "
            "weights are rounded to nearest. Leave it out; methods that learn from data read it, such as "
            "gptq.",
        ),
    ],
)
def test_refused(
    plain: Path,
    tmp_path: Path,
    target: str,
    scheme: str,
    fields: dict[str, Any],
    error: type[EdgeqError],
    said: str,
) -> None:
    with pytest.raises(error) as caught:
        compiled(plain, tmp_path / "a", target, scheme, **fields)
    assert str(caught.value) == said
