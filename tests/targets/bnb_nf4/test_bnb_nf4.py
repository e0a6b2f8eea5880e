"""NF4 folders, reloaded by transformers with bitsandbytes, with the codes of its own quantization."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edgeq.cli.app import app
from edgeq.compiler.load.checkpoint import Checkpoint
from edgeq.errors import ConfigError
from edgeq.report import render_report
from edgeq.targets.bnb_nf4.double import dynamic_map, round_scales
from edgeq.targets.bnb_nf4.format import Nf4Format
from edgeq.targets.language import prove
from edgeq.targets.language.stored import StoredFolder
from tests.support.checkpoint_folders import compiled, digests, passed
from tests.support.tiny_llama import tiny_llama

pytest.importorskip("bitsandbytes")

Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"), num_hidden_layers=1)


@pytest.mark.parametrize("double", ["no", "yes"])
def test_bitsandbytes_own_tensors(model: Path, tmp_path: Path, double: str) -> None:
    import torch
    from bitsandbytes.functional import quantize_4bit

    result = compiled(model, tmp_path / "a", "bnb-nf4", "nf4-weight", options={"double_quant": double})
    assert passed(result)
    stored = StoredFolder(result.folder)
    weight = torch.from_numpy(np.array(Checkpoint(model).read(f"{Q}.weight")))
    codes, state = quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=double == "yes")
    assert np.array_equal(stored.array(f"{Q}.weight"), codes.numpy())
    for key, value in state.as_dict(packed=True).items():
        ours = stored.array(f"{Q}.weight.{key}")
        if "quant_state" not in key:
            assert np.allclose(ours.astype(np.float32), value.float().numpy(), rtol=0, atol=1e-7), key
    again = compiled(model, tmp_path / "b", "bnb-nf4", "nf4-weight", options={"double_quant": double})
    assert digests(again.folder) == digests(result.folder)


def test_the_map_of_rounded_scales() -> None:
    import torch
    from bitsandbytes.functional import create_dynamic_map, quantize_blockwise

    assert np.abs(dynamic_map() - create_dynamic_map().numpy()).max() < 1e-7
    scales = np.random.default_rng(0).random((40, 20), dtype=np.float32)
    found = round_scales(scales)
    codes, state = quantize_blockwise(torch.from_numpy(scales.ravel() - found.offset), blocksize=256)
    assert np.array_equal(found.codes, codes.numpy())
    assert np.array_equal(found.largest, state.absmax.numpy())
    assert np.abs(found.values() - scales.ravel()).max() < 0.02


def test_tied_embeddings(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path / "m", tie_word_embeddings=True, num_hidden_layers=1, dtype="bfloat16")
    result = compiled(model, tmp_path / "a", "bnb-nf4", "nf4-weight", override={Q: "fp16"})
    assert passed(result)
    config = StoredFolder(result.folder).quantization
    assert set(config["llm_int8_skip_modules"]) == {Q, "lm_head"}
    assert config["bnb_4bit_compute_dtype"] == "bfloat16"


def test_what_is_loaded_whole_is_run_up_to_a_size(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prove, "RELOADED_BYTES", 1000)
    result = compiled(model, tmp_path / "a", "bnb-nf4", "nf4-weight")
    weights, numbers = prove.prove(result.folder, Nf4Format(), None)
    assert weights.passed
    assert "all 7 layers" in weights.found
    assert (numbers.passed, "not compared" in numbers.found) == (None, True)

    assert next(check for check in result.manifest.checks if check.name == "numbers").passed is None
    assert '<span class="soft" title="not tried">?</span>' in render_report(result.manifest)
    again = CliRunner().invoke(app, ["verify", str(result.folder)])
    assert again.exit_code == 0
    assert "3 of 4 checks passed, 1 not tried" in again.stdout


def test_options(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be 'maybe'"):
        compiled(model, tmp_path / "a", "bnb-nf4", "nf4-weight", options={"double_quant": "maybe"})
    with pytest.raises(ConfigError, match="has no option 'triple'"):
        compiled(model, tmp_path / "a", "bnb-nf4", "nf4-weight", options={"triple": "yes"})
