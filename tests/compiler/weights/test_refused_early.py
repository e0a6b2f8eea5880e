"""What is wrong with a checkpoint or a request is said before hours of quantizing, and folders are read as
transformers reads them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import edgeq
from edgeq.artefact import WORK
from edgeq.calibration.data import DataOptions
from edgeq.compiler.load.checkpoint import Checkpoint, load_checkpoint
from edgeq.compiler.recipe import Override, Recipe, Scheme
from edgeq.compiler.weights.decoder import Decoder
from edgeq.compiler.weights.store import save_tensors
from edgeq.errors import DataError, ModelError, StrictError, TargetError
from edgeq.progress import SilentProgress
from edgeq.sources import DataOpener
from tests.support.tiny_llama import tiny_llama

QUERY = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"), num_hidden_layers=1)


def changed(source: Path, folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> Path:
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(llama: Path, tmp_path: Path, value: float) -> None:
    def spoil(tensors: dict[str, np.ndarray]) -> None:
        tensors[QUERY][3, 5] = value

    model = changed(llama, tmp_path / "model", spoil)
    recipe = Recipe(scheme="int4-weight", block_size=32)
    with pytest.raises(ModelError, match=f"'{QUERY}' in .* has values that are NaN or infinite"):
        edgeq.compile(str(model), target="hf-gptq", recipe=recipe, output=tmp_path / "out", bench=None)
    assert not (tmp_path / WORK).exists()


@pytest.fixture(scope="module")
def bfloat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("bfloat"), num_hidden_layers=1, dtype="bfloat16")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("wide"), num_hidden_layers=1, dtype="float32")


def large(source: Path, folder: Path, tensor: str, value: float = 1e8) -> Path:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors[tensor][(0,) * tensors[tensor].ndim] = value

    return changed(source, folder, change)


def refusal(model: Path, tmp_path: Path, target: str, recipe: Recipe) -> str:
    with pytest.raises(TargetError) as caught:
        edgeq.compile(str(model), target=target, recipe=recipe, output=tmp_path / "out", bench=None)
    assert not (tmp_path / WORK).exists()
    return str(caught.value)


@pytest.mark.parametrize("value", [1e8, -65600.0])
@pytest.mark.parametrize(
    ("target", "scheme", "fix"),
    [
        ("hf-gptq", "int4-weight", "bfloat16"),
        ("hf-awq", "int4-weight", "bfloat16"),
        ("vllm", "int4-weight", "bfloat16"),
        ("vllm", "int8-dynamic", "bfloat16"),
        ("bnb-nf4", "nf4-weight", "bfloat16"),
        ("onnxruntime-genai", "int4-weight", "--override"),
        ("gguf", "int8-weight", "--override"),
    ],
)
def test_weights_beyond_what_the_format_holds(
    wide: Path, tmp_path: Path, target: str, scheme: Scheme, fix: str, value: float
) -> None:
    model = large(wide, tmp_path / "model", QUERY, value)
    said = refusal(model, tmp_path, target, Recipe(scheme=scheme))
    assert f"The tensor '{QUERY}' has a value of {abs(value):.4g}, and target '{target}' stores it" in said
    assert "numbers of float16, which end at 65504" in said
    assert fix in said


@pytest.mark.parametrize("tensor", ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"])
def test_kept_tensors_beyond_float16_are_refused_before_quantizing(
    wide: Path, tmp_path: Path, tensor: str
) -> None:
    model = large(wide, tmp_path / "model", tensor)
    assert f"The tensor '{tensor}'" in refusal(model, tmp_path, "hf-gptq", Recipe(scheme="int4-weight"))


def test_types_that_llama_makes_have_scales_of_float16_too(wide: Path, tmp_path: Path) -> None:
    model = large(wide, tmp_path / "model", QUERY)
    with pytest.raises(TargetError, match=f"'{QUERY}' has a value of 1e\\+08"):
        edgeq.compile(
            str(model),
            target="gguf",
            scheme="int4-weight",
            target_options={"type": "q5_0"},
            output=tmp_path / "out",
            bench=None,
        )


def test_bfloat16_holds_what_float16_does_not(bfloat: Path, wide: Path, tmp_path: Path) -> None:
    """The two remedies that errors name."""
    import torch
    from safetensors.torch import load_file as load
    from safetensors.torch import save_file as save

    model = tmp_path / "bfloat"
    shutil.copytree(bfloat, model)
    tensors = load(model / "model.safetensors")
    tensors[QUERY][0, 0] = torch.tensor(1e8)
    save(tensors, model / "model.safetensors", metadata={"format": "pt"})
    recipe = Recipe(scheme="int4-weight", block_size=32)
    edgeq.compile(str(model), target="hf-gptq", recipe=recipe, output=tmp_path / "out", bench=None)

    kept = replace_overrides(recipe, QUERY.removesuffix(".weight"))
    model = large(wide, tmp_path / "wide", QUERY)
    edgeq.compile(str(model), target="onnxruntime-genai", recipe=kept, output=tmp_path / "out", bench=None)


def replace_overrides(recipe: Recipe, layer: str) -> Recipe:
    return recipe.model_copy(update={"overrides": (Override(match=layer, precision="fp16"),)})


def test_strict_is_judged_by_the_plan(llama: Path, tmp_path: Path) -> None:
    recipe = Recipe(scheme="int4-weight", block_size=32)
    with pytest.raises(StrictError, match="'lm_head' runs in fp16: the format's readers take"):
        edgeq.compile(
            str(llama), target="hf-gptq", recipe=recipe, output=tmp_path / "out", bench=None, strict=True
        )
    assert not (tmp_path / WORK).exists()


def test_a_tensor_of_another_shape(llama: Path, tmp_path: Path) -> None:
    def cut(tensors: dict[str, np.ndarray]) -> None:
        tensors[QUERY] = tensors[QUERY][:32].copy()

    with pytest.raises(ModelError, match=r"q_proj.weight' is \[32, 64\], not \[64, 64\]"):
        Decoder(Checkpoint(changed(llama, tmp_path / "model", cut)))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", '{"version": "1.0", "model": {"type": "BPE", "vo'),
        ("tokenizer.json", '{"version": "1.0", "model": {"type": "other"}}'),
        ("tokenizer_config.json", "{"),
        ("generation_config.json", ""),
    ],
)
def test_a_damaged_file_that_would_be_copied(llama: Path, tmp_path: Path, name: str, content: str) -> None:
    model = changed(llama, tmp_path / "model", lambda _: None)
    (model / name).write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=rf"model/{name} (is no tokenizer|cannot be read)") as caught:
        load_checkpoint(model, SilentProgress())
    assert caught.value.fix == "Download or save the model again."


@pytest.mark.parametrize("target", ["hf-gptq", "gguf", "onnxruntime-genai"])
def test_an_activation_that_is_none(llama: Path, tmp_path: Path, target: str) -> None:
    model = changed(llama, tmp_path / "model", lambda _: None)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps({**config, "hidden_act": "sliu"}), encoding="utf-8")
    with pytest.raises(
        ModelError, match=r"config.json: hidden_act is 'sliu', which is no activation"
    ) as caught:
        edgeq.compile(str(model), target=target, scheme="int4-weight", output=tmp_path / "out", bench=None)
    assert caught.value.fix == "Correct it (silu, …), or download the model again."


def test_rotary_tables_of_old_checkpoints_are_no_weights(llama: Path, tmp_path: Path) -> None:
    def old(tensors: dict[str, np.ndarray]) -> None:
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)

    checkpoint = Checkpoint(changed(llama, tmp_path / "model", old))
    assert list(checkpoint.tensors) == list(Checkpoint(llama).tensors)
    Decoder(checkpoint)


def test_files_that_hold_the_weights_again_are_left_alone(llama: Path, tmp_path: Path) -> None:
    model = changed(llama, tmp_path / "model", lambda _: None)
    save_file(
        {"layers.0.attention.wq.weight": np.ones((2, 2), np.float16)}, model / "consolidated.safetensors"
    )
    assert list(Checkpoint(model).tensors) == list(Checkpoint(llama).tensors)


def test_an_index_that_names_a_missing_file(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path, num_hidden_layers=1, shard="60KB")
    complete = Checkpoint(model)
    assert len(complete.files) > 1
    index = model / "model.safetensors.index.json"
    complete.files[0].unlink()
    with pytest.raises(ModelError, match=f"index.json names '{complete.files[0].name}', which is missing"):
        Checkpoint(model)
    index.write_text(json.dumps({"weight_map": 3}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"index\.json cannot be read"):
        Checkpoint(model)


@pytest.mark.parametrize("change", [{"num_attention_heads": "four"}, {"num_attention_heads": 0}])
def test_a_configuration_that_transformers_cannot_use(
    llama: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    model = changed(llama, tmp_path / "model", lambda _: None)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config.pop("head_dim", None)
    (model / "config.json").write_text(json.dumps({**config, **change}), encoding="utf-8")
    with pytest.raises(ModelError, match="cannot be loaded"):
        Decoder(Checkpoint(model))


@pytest.mark.parametrize("value", ["four", 0, 2.5, True])
def test_sizes_that_are_none(llama: Path, tmp_path: Path, value: object) -> None:
    model = changed(llama, tmp_path / "model", lambda _: None)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["num_attention_heads"] = value
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match=r"num_attention_heads is .*, not a number above 0"):
        load_checkpoint(model, SilentProgress())


def test_windows_beyond_the_context(llama: Path, tmp_path: Path) -> None:
    model = load_checkpoint(llama, SilentProgress())
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox. " * 200, encoding="utf-8")
    opener = DataOpener(model.inputs, model.source, None, DataOptions(window=256))
    assert opener.open(str(text)) is not None
    with pytest.raises(DataError, match="Windows of the text have 257 tokens, and the model reads 256"):
        replace(opener, options=DataOptions(window=257)).open(str(text))


def test_tokens_that_the_model_has_not(llama: Path, tmp_path: Path) -> None:
    model = load_checkpoint(llama, SilentProgress())
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox. " * 200, encoding="utf-8")
    small = replace(model.source, details={**model.source.details, "vocabulary": 100})
    with pytest.raises(DataError, match=r"The tokenizer makes the token .*, and the model has 100"):
        DataOpener(model.inputs, small, None, None).open(str(text))


def test_level_4_without_data(llama: Path, tmp_path: Path) -> None:
    recipe = Recipe(scheme="int4-weight", accuracy_level=4)
    with pytest.raises(DataError, match="Accuracy level 4 is judged against level 0, which needs data"):
        edgeq.compile(
            str(llama), target="onnxruntime-genai", recipe=recipe, output=tmp_path / "out", bench=None
        )
    assert not (tmp_path / WORK).exists()


def test_errors_of_the_disk_are_those_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        save_tensors({"a": np.zeros(3, np.float32)}, tmp_path / "none" / "a.safetensors")
