"""The target end to end, on exact types: bytes, values, layers, refusals. Nothing here needs llama.cpp."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeq.compiler.load.checkpoint import Checkpoint, load_checkpoint
from edgeq.compiler.recipe import Override, Recipe
from edgeq.errors import ConfigError, MissingExtraError, TargetError
from edgeq.progress import SilentProgress
from edgeq.targets.gguf.convert import Conversion
from edgeq.targets.gguf.metadata import context_length, rope_factors
from edgeq.targets.gguf.options import parse_options
from edgeq.targets.gguf.read import GgufFile, open_reference
from edgeq.targets.gguf.target import GgufTarget
from edgeq.targets.language.float_runner import open_float
from tests.support.gguf_models import compile_gguf, random_family, tiny_llama


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(autouse=True)
def _without_llama(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeq.targets.gguf.prove.is_installed", lambda: False)
    monkeypatch.setattr("edgeq.targets.gguf.llama.is_installed", lambda: False)
    monkeypatch.setattr("edgeq.targets.gguf.options.is_installed", lambda: False)
    monkeypatch.setattr("edgeq.targets.gguf.build.is_installed", lambda: False)


@pytest.mark.parametrize(("file_type", "kind"), [("q8_0", "Q8_0"), ("q4_0", "Q4_0"), ("q4_1", "Q4_1")])
def test_exact_types_hold_the_codes(source: Path, tmp_path: Path, file_type: str, kind: str) -> None:
    symmetric = file_type != "q4_1"
    result = compile_gguf(source, tmp_path / "a", file_type, symmetric_weights=symmetric)
    checks = {check.name: check for check in result.manifest.checks}
    assert checks["weights"].passed
    assert "bit for bit" in checks["weights"].wanted
    types = GgufFile(result.folder / "model.gguf").types
    assert types["blk.1.ffn_down.weight"] == kind
    assert types["output_norm.weight"] == "F32"


def test_the_same_bytes_every_time(source: Path, tmp_path: Path) -> None:
    files = [compile_gguf(source, tmp_path / name, "q4_0").folder / "model.gguf" for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_overrides_choose_the_types_of_layers(source: Path, tmp_path: Path) -> None:
    overrides = (
        Override(match="lm_head", precision="int8"),
        Override(match="*embed_tokens", precision="fp16"),
    )
    result = compile_gguf(source, tmp_path / "a", "q4_0", overrides=overrides)
    types = GgufFile(result.folder / "model.gguf").types
    assert types["output.weight"] == "Q8_0"
    assert types["token_embd.weight"] == "F16"
    nodes = {node.name: node for node in result.manifest.nodes}
    assert nodes["lm_head"].actual == "int8"
    assert not nodes["lm_head"].missed


@pytest.mark.parametrize("file_type", ["f32", "f16"])
def test_float_files_compute_the_model(source: Path, tmp_path: Path, file_type: str) -> None:
    result = compile_gguf(source, tmp_path / "a", file_type)
    ids = {"input_ids": np.arange(24, dtype=np.int64)[None]}
    found = open_reference(result.folder, threads=1).run(ids)["logits"]
    np.testing.assert_array_equal(found, open_float(source, threads=1).run(ids)["logits"])


@pytest.mark.parametrize("file_type", ["q5_0", "q5_1", "mxfp4", "bf16"])
def test_other_types_of_the_package(source: Path, tmp_path: Path, file_type: str) -> None:
    result = compile_gguf(source, tmp_path / "a", file_type)
    file = GgufFile(result.folder / "model.gguf")
    assert file.types["blk.0.ffn_up.weight"] == file_type.upper()
    wanted = Checkpoint(source).float32("model.layers.0.mlp.up_proj.weight")
    error = np.square(file.float32("blk.0.ffn_up.weight") - wanted).sum() / np.square(wanted).sum()
    assert error < 0.05


def test_checkpoints_of_bfloat16(tmp_path: Path) -> None:
    source = tiny_llama(tmp_path / "source", dtype="bfloat16")
    result = compile_gguf(source, tmp_path / "a", "f16")
    name = "model.layers.0.mlp.up_proj.weight"
    found = GgufFile(result.folder / "model.gguf").float32("blk.0.ffn_up.weight")
    np.testing.assert_allclose(found, Checkpoint(source).float32(name), atol=2**-24)
    result = compile_gguf(source, tmp_path / "b", "bf16")
    found = GgufFile(result.folder / "model.gguf").float32("blk.0.ffn_up.weight")
    np.testing.assert_array_equal(found, Checkpoint(source).float32(name))


def test_floats_beyond_float16_stay_float32(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    source = tiny_llama(tmp_path / "source", dtype="float32")
    tensors = load_file(source / "model.safetensors")
    tensors["lm_head.weight"][0, 0] = 1e5
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    result = compile_gguf(source, tmp_path / "a", "f16")
    types = GgufFile(result.folder / "model.gguf").types
    assert types["output.weight"] == "F32"
    assert types["token_embd.weight"] == "F16"


def test_rows_that_are_no_whole_blocks_stay_float(tmp_path: Path) -> None:
    source = tiny_llama(tmp_path / "source", intermediate_size=80)
    result = compile_gguf(source, tmp_path / "a", "q4_0")
    nodes = {node.name: node for node in result.manifest.nodes}
    assert nodes["model.layers.0.mlp.down_proj"].actual == "fp16"
    assert "no whole groups of 32" in nodes["model.layers.0.mlp.down_proj"].reason
    assert nodes["model.layers.0.mlp.up_proj"].actual == "int4"


def test_a_tied_output_layer_is_stored_once(tmp_path: Path) -> None:
    source = tiny_llama(tmp_path / "source", tie_word_embeddings=True)
    result = compile_gguf(source, tmp_path / "a", "q8_0")
    assert "output.weight" not in GgufFile(result.folder / "model.gguf").types


def test_types_of_llama_cpp_are_refused_without_it() -> None:
    with pytest.raises(TargetError, match="llama-cpp-python is not installed"):
        parse_options({"type": "q4_k_m"}, Recipe(scheme="int4-weight"))


@pytest.mark.parametrize(
    ("file_type", "recipe"),
    [
        ("q8_0", Recipe(scheme="int4-weight")),
        ("q4_0", Recipe(scheme="int4-weight", symmetric_weights=False)),
        ("q5_0", Recipe(scheme="int4-weight", weight_method="gptq")),
        ("q5_0", Recipe(scheme="int4-weight", block_size=32)),
        ("q9", Recipe(scheme="int4-weight")),
    ],
)
def test_options_that_would_do_nothing_are_refused(file_type: str, recipe: Recipe) -> None:
    with pytest.raises(ConfigError):
        parse_options({"type": file_type}, recipe)


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    source = random_family("Llama", tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    with pytest.raises(TargetError, match="hidden_act = relu"):
        Conversion.of(source)
    (source / "config.json").write_text(json.dumps({**config, "architectures": ["OPTForCausalLM"]}))
    with pytest.raises(TargetError, match="OPTForCausalLM"):
        Conversion.of(source)


def test_the_context_ends_with_a_window_that_llama_cpp_has_not(tmp_path: Path) -> None:
    source = random_family("Mistral", tmp_path / "source", sliding_window=64)
    conversion = Conversion.of(source)
    assert context_length(conversion.config, conversion.architecture) == 64
    assert any("sliding window" in note for note in conversion.notes())


def test_rope_factors_are_those_of_transformers() -> None:
    import torch
    import transformers
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    from tests.support.gguf_models import LLAMA3_ROPE

    config = transformers.LlamaConfig(
        hidden_size=64, num_attention_heads=4, rope_scaling=LLAMA3_ROPE, rope_theta=500000.0
    )
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 500000.0 ** -(np.arange(0, 16, 2) / 16)
    factors = rope_factors(config.to_dict())
    assert factors is not None
    np.testing.assert_allclose(plain / factors, scaled.numpy(), rtol=1e-5)


def test_the_runner_says_what_stands_in_for_llama_cpp(source: Path, tmp_path: Path) -> None:
    result = compile_gguf(source, tmp_path / "a", "q4_0")
    target = GgufTarget()
    assert "PyTorch" in target.runner_kind()
    runner = target.runner(result.folder, threads=1)
    logits = runner.run({"input_ids": np.arange(8, dtype=np.int64)[None]})["logits"]
    assert logits.shape == (1, 8, 256)
    assert all(check.passed for check in target.check(result.folder))


def test_a_package_that_does_not_load(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    target, recipe = GgufTarget(), Recipe(scheme="int4-weight")
    with pytest.raises(MissingExtraError, match="Writing GGUF files needs"):
        target.check_model(load_checkpoint(source, SilentProgress()), target.options({}, recipe))
