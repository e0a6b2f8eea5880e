"""K- and IQ-quants through llama.cpp, with and without an importance matrix.

llama-cpp-python is compiled from source, so the extra ``dev`` has it not: without it these tests skip.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgeq.calibration.types import Array
from edgeq.compiler.load.checkpoint import Checkpoint
from edgeq.compiler.recipe import Override
from edgeq.errors import DataError, TargetError
from edgeq.targets.gguf.importance import collect_importance
from edgeq.targets.gguf.read import GgufFile
from edgeq.targets.gguf.requantize import requantize
from edgeq.targets.gguf.types import FILE_TYPES
from tests.support.gguf_models import compile_gguf, float_file, tiny_llama, token_ids

pytest.importorskip("llama_cpp")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of 256: whole superblocks."""
    folder = tmp_path_factory.mktemp("llama")
    return tiny_llama(folder, hidden_size=256, intermediate_size=256)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "tokens.npz"
    np.savez(path, input_ids=token_ids(8, 32))
    return path


def test_an_importance_matrix_moves_the_rounding(source: Path, text: Path, tmp_path: Path) -> None:
    plain = compile_gguf(source, tmp_path / "plain", "q2_k")
    weighed = compile_gguf(source, tmp_path / "weighed", "q2_k", calibration=text)
    assert all(check.passed for check in (*plain.manifest.checks, *weighed.manifest.checks))
    assert any("without an importance matrix" in note for note in plain.manifest.notes)
    files = [GgufFile(one.folder / "model.gguf") for one in (plain, weighed)]
    name = "blk.1.ffn_up.weight"
    assert files[0].types[name] == files[1].types[name] == "Q2_K"
    importance = _importance(source, text)["model.layers.1.mlp.up_proj"]
    wanted = Checkpoint(source).float32("model.layers.1.mlp.up_proj.weight")
    errors = [_weighed_error(file.float32(name), wanted, importance) for file in files]
    assert errors[1] < errors[0]


def test_what_llama_refuses_is_said_in_the_error_alone(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """ggml writes some of its errors to C's stderr, past llama.cpp's log."""
    model = tmp_path / "model"
    shutil.copytree(source, model)
    tensors = {
        name: value.astype(np.float32) for name, value in load_file(model / "model.safetensors").items()
    }
    tensors["model.layers.0.mlp.down_proj.weight"][0, 0] = 1e30
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    floats = tmp_path / "floats.gguf"
    float_file(model, floats)
    capfd.readouterr()
    with pytest.raises(
        TargetError, match=r"cannot make q3_k_m: .*validation failed; .*found inf value at block"
    ):
        requantize(floats, tmp_path / "made.gguf", FILE_TYPES["q3_k_m"], {}, {}, threads=1)
    assert capfd.readouterr() == ("", "")


def test_importance_is_the_mean_square_of_what_layers_read(source: Path, text: Path) -> None:
    import torch
    import transformers

    found = _importance(source, text)
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    seen: dict[str, Array] = {}
    for name in ("model.layers.1.mlp.down_proj", "lm_head"):

        def look(_: object, args: tuple[torch.Tensor], name: str = name) -> None:
            seen[name] = args[0].detach().reshape(-1, args[0].shape[-1]).square().mean(0).numpy()

        model.get_submodule(name).register_forward_pre_hook(look)
    with torch.no_grad():
        model(input_ids=torch.from_numpy(token_ids(8, 32)))
    for name, wanted in seen.items():
        np.testing.assert_allclose(found[name], wanted, rtol=1e-3)


@pytest.mark.parametrize("name", [one.name for one in FILE_TYPES.values() if one.maker == "llama.cpp"])
def test_types_that_need_no_text_are_made_without(source: Path, tmp_path: Path, name: str) -> None:
    if FILE_TYPES[name].importance:
        with pytest.raises(DataError, match="importance matrix"):
            compile_gguf(source, tmp_path / "a", name)
        return
    assert compile_gguf(source, tmp_path / "a", name).folder.is_dir()


def test_what_llama_cpp_says_is_one_sentence(tmp_path: Path, source: Path) -> None:
    """A type whose mix needs a matrix for this model alone."""
    floats = compile_gguf(source, tmp_path / "f", "f16").folder / "model.gguf"
    with pytest.raises(TargetError) as refusal:
        requantize(floats, tmp_path / "out.gguf", FILE_TYPES["iq2_xs"], {}, {}, threads=1)
    assert "requires an importance matrix! - offending tensor: " in refusal.value.what
    assert "\n" not in refusal.value.what
    assert "==" not in refusal.value.what
    assert refusal.value.fix.startswith("Give a text with --calibration")


def test_iq_types_need_text(source: Path, text: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="importance matrix"):
        compile_gguf(source, tmp_path / "a", "iq2_xs")
    result = compile_gguf(source, tmp_path / "a", "iq2_xs", calibration=text)
    assert "IQ2_XS" in result.manifest.load_hints["tensors"]


def test_overrides_reach_llama_cpp(source: Path, tmp_path: Path) -> None:
    overrides = (
        Override(match="*layers.0.mlp.*", precision="int8"),
        Override(match="lm_head", precision="fp16"),
    )
    result = compile_gguf(source, tmp_path / "a", "q4_k_m", overrides=overrides)
    types = GgufFile(result.folder / "model.gguf").types
    assert types["blk.0.ffn_up.weight"] == "Q8_0"
    assert types["output.weight"] == "F16"
    assert types["blk.1.ffn_up.weight"] == "Q4_K"


def _importance(source: Path, text: Path) -> dict[str, Array]:
    from edgeq.calibration.data import open_data
    from edgeq.compiler.load import open_checkpoint
    from edgeq.progress import SilentProgress

    model = open_checkpoint(source, None, SilentProgress())
    data = open_data(text, model.inputs)
    return dict(collect_importance(Checkpoint(source), data, 8, SilentProgress()))


def _weighed_error(found: Array, wanted: Array, importance: Array) -> float:
    return float((np.square(found - wanted) * importance).sum())
