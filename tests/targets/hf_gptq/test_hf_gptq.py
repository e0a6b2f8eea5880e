"""GPTQ folders: every form of them, and gptqmodel's own reading where it is installed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgeq.compiler.weights.spec import WeightSpec
from edgeq.errors import TargetError
from edgeq.targets.hf_gptq.format import GptqFormat
from edgeq.targets.language.format import Shape
from edgeq.targets.language.stored import StoredFolder
from tests.support.checkpoint_folders import IDS, compiled, logits_of, passed, rounded_logits
from tests.support.tiny_llama import tiny_llama

Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"), num_hidden_layers=1)


@pytest.mark.parametrize(
    ("bits", "group", "symmetric"),
    [
        (4, 32, True),
        (4, 64, False),
        (8, 32, False),
        (3, 32, True),
        (3, 32, False),
        (2, 64, False),
        (4, -1, True),
    ],
)
def test_every_form(model: Path, tmp_path: Path, bits: int, group: int, symmetric: bool) -> None:
    result = compiled(
        model, tmp_path / "a", "hf-gptq", f"int{bits}-weight", block_size=group, symmetric_weights=symmetric
    )
    assert passed(result)
    rules = {} if symmetric else {"lowest_zero_point": 1}
    wanted = rounded_logits(model, WeightSpec(bits, group, symmetric), IDS, **rules)
    assert np.array_equal(logits_of(result, IDS), wanted)
    config = json.loads((result.folder / "quantize_config.json").read_text())
    assert config == StoredFolder(result.folder).quantization
    assert (config["bits"], config["group_size"], config["sym"]) == (bits, group, symmetric)
    assert (config["desc_act"], config["lm_head"], config["checkpoint_format"]) == (False, False, "gptq")


def test_symmetric_zero_points_are_stored_minus_one(model: Path, tmp_path: Path) -> None:
    result = compiled(model, tmp_path / "a", "hf-gptq", "int4-weight", block_size=32)
    stored = StoredFolder(result.folder)
    assert set(stored.array(f"{Q}.qzeros").view(np.uint32).ravel()) == {0x77777777}
    assert stored.array(f"{Q}.g_idx").tolist() == [i // 32 for i in range(64)]
    assert stored.tensors[f"{DOWN}.qweight"].shape == (128 // 8, 64)


def test_mixed_bits(model: Path, tmp_path: Path) -> None:
    override = {"*.down_proj": "int8", Q: "fp16"}
    result = compiled(model, tmp_path / "a", "hf-gptq", "int4-weight", block_size=32, override=override)
    assert passed(result)
    actual = {node.name: node.actual for node in result.manifest.nodes}
    assert (actual[Q], actual[DOWN]) == ("fp16", "int8")
    dynamic = StoredFolder(result.folder).quantization["dynamic"]
    assert dynamic == {
        r"-:^model\.layers\.0\.self_attn\.q_proj$": {},
        r"+:^model\.layers\.0\.mlp\.down_proj$": {"bits": 8, "group_size": 32, "sym": True},
    }
    assert any("TGI and ExLlamaV2 do not" in note for note in result.manifest.notes)
    assert any("vLLM joins q, k and v" in note for note in result.manifest.notes)


def test_groups_that_no_kernel_has(model: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="does not store weights in groups of 16"):
        compiled(model, tmp_path / "a", "hf-gptq", "int4-weight", block_size=16)


@pytest.mark.parametrize(("bits", "group"), [(4, 32), (8, 32), (3, 32), (2, 64)])
def test_gptqmodel_reads_the_same_values(model: Path, tmp_path: Path, bits: int, group: int) -> None:
    pytest.importorskip("gptqmodel", reason="gptqmodel is not installed", exc_type=ImportError)
    from tests.support.gptq_library import gptqmodel_values

    result = compiled(model, tmp_path / "a", "hf-gptq", f"int{bits}-weight", block_size=group)
    stored, spec = StoredFolder(result.folder), WeightSpec(bits, group)
    ours = GptqFormat().read(stored, Q, spec, Shape(64, 64, np.dtype(np.float16)))
    theirs = gptqmodel_values(result.folder, Q, bits, group).numpy()
    # it multiplies in float16
    assert np.array_equal(ours.astype(np.float16), theirs.astype(np.float16))
