"""AWQ folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeq.compiler.weights.spec import WeightSpec
from edgeq.errors import TargetError
from edgeq.targets.hf_awq.format import _interleaved, _ordered
from edgeq.targets.language.stored import StoredFolder
from tests.support.checkpoint_folders import IDS, compiled, digests, logits_of, passed, rounded_logits
from tests.support.tiny_llama import tiny_llama

Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"), num_hidden_layers=1)


@pytest.mark.parametrize(("group", "symmetric"), [(32, False), (64, True)])
def test_every_form(model: Path, tmp_path: Path, group: int, symmetric: bool) -> None:
    arguments = {"block_size": group, "symmetric_weights": symmetric}
    result = compiled(model, tmp_path / "a", "hf-awq", "int4-weight", **arguments)
    assert passed(result)
    wanted = rounded_logits(model, WeightSpec(4, group, symmetric), IDS)
    assert np.array_equal(logits_of(result, IDS), wanted)
    stored = StoredFolder(result.folder)
    assert stored.quantization["modules_to_not_convert"] == ["lm_head"]
    assert stored.tensors[f"{DOWN}.qweight"].shape == (128, 64 // 8)
    assert stored.tensors[f"{DOWN}.qzeros"].shape == (128 // group, 64 // 8)
    if symmetric:
        assert set(stored.array(f"{Q}.qzeros").view(np.uint32).ravel()) == {0x88888888}
    again = compiled(model, tmp_path / "b", "hf-awq", "int4-weight", **arguments)
    assert digests(again.folder) == digests(result.folder)


def test_the_order_of_outputs() -> None:
    codes = np.arange(8, dtype=np.uint8)[None]
    # AutoAWQ: order_map = [0, 2, 4, 6, 1, 3, 5, 7]; qweight |= intweight[:, order_map[i]] << (4 * i)
    assert int(_interleaved(codes).view(np.uint32)[0, 0]) == 0x75316420
    assert np.array_equal(_ordered(_interleaved(codes), 8), codes)


def test_layers_that_stay_float_are_named(model: Path, tmp_path: Path) -> None:
    result = compiled(model, tmp_path / "a", "hf-awq", "int4-weight", block_size=32, override={DOWN: "fp16"})
    assert passed(result)
    assert set(StoredFolder(result.folder).quantization["modules_to_not_convert"]) == {DOWN, "lm_head"}


def test_other_bits_are_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError):
        compiled(model, tmp_path / "a", "hf-awq", "int8-weight")
