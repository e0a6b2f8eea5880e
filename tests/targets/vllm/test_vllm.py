"""compressed-tensors folders, reloaded by transformers, and packed as the library packs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeq.compiler.weights.spec import WeightSpec
from edgeq.errors import EdgeqError, TargetError
from edgeq.targets.language.stored import StoredFolder
from edgeq.targets.language.torch_arrays import tensor_of
from edgeq.targets.vllm.library import _scheme
from tests.support.checkpoint_folders import IDS, compiled, digests, logits_of, passed, rounded_logits
from tests.support.tiny_llama import tiny_llama

pytest.importorskip("compressed_tensors")

Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"), num_hidden_layers=1)


@pytest.mark.parametrize(
    ("bits", "group", "symmetric"),
    [(4, 32, True), (4, 64, False), (8, -1, True), (8, 32, False), (4, -1, False)],
)
def test_every_form(model: Path, tmp_path: Path, bits: int, group: int, symmetric: bool) -> None:
    arguments = {"block_size": group, "symmetric_weights": symmetric}
    result = compiled(model, tmp_path / "a", "vllm", f"int{bits}-weight", **arguments)
    assert passed(result)
    wanted = rounded_logits(model, WeightSpec(bits, group, symmetric), IDS)
    assert np.array_equal(logits_of(result, IDS), wanted)
    _same_as_the_library(StoredFolder(result.folder), DOWN)
    said = [note for note in result.manifest.notes if "asymmetric" in note]
    assert bool(said) is not symmetric


def _same_as_the_library(stored: StoredFolder, layer: str) -> None:
    """Compress the decompressed weights with the library: the same tensors come out."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import dequantize

    scheme = _scheme(stored, layer)
    compressor = BaseCompressor.get_value_from_registry(scheme.format)
    parts = {
        name.rpartition(".")[2]: tensor_of(stored.array(name))
        for name in stored.tensors
        if name.startswith(layer + ".")
    }
    opened = compressor.decompress({**parts, "weight_scale": parts["weight_scale"].float()}, scheme)
    assert isinstance(scheme.weights, QuantizationArgs)
    assert dequantize is not None
    again = compressor.compress({**opened, "weight_scale": parts["weight_scale"].float()}, scheme)
    for name, value in parts.items():
        assert value.float().equal(again[name].float()), name


def test_mixed_bits_are_groups(model: Path, tmp_path: Path) -> None:
    override = {"*.down_proj": "int8", "*.o_proj": "fp16"}
    result = compiled(model, tmp_path / "a", "vllm", "int4-weight", block_size=32, override=override)
    assert passed(result)
    config = StoredFolder(result.folder).quantization
    targets = [group["targets"] for group in config["config_groups"].values()]
    assert [DOWN] in targets
    assert set(config["ignore"]) == {"model.layers.0.self_attn.o_proj", "lm_head"}


def test_joined_layers_must_be_alike(model: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"vLLM joins 'model\.layers\.0\.self_attn\.q_proj'"):
        compiled(model, tmp_path / "a", "vllm", "int4-weight", block_size=32, override={Q: "int8"})


def test_integer_products(model: Path, tmp_path: Path) -> None:
    result = compiled(model, tmp_path / "a", "vllm", "int8-dynamic")
    assert passed(result)
    assert {check.name for check in result.manifest.checks} == {"weights", "int8 numbers"}
    stored = StoredFolder(result.folder)
    assert (stored.tensors[f"{Q}.weight"].dtype, stored.tensors[f"{Q}.weight_scale"].shape) == (
        np.int8,
        (64, 1),
    )
    assert stored.quantization["format"] == "int-quantized"
    _same_as_the_library(stored, Q)
    floats = rounded_logits(model, WeightSpec(8, -1), IDS)
    noise = np.abs(logits_of(result, IDS) - floats).max()
    assert 0 < noise < 0.1 * np.abs(floats).max()
    again = compiled(model, tmp_path / "b", "vllm", "int8-dynamic")
    assert digests(again.folder) == digests(result.folder)


def test_tied_embeddings(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path / "m", tie_word_embeddings=True, num_hidden_layers=1)
    result = compiled(model, tmp_path / "a", "vllm", "int4-weight", block_size=32)
    assert passed(result)
    assert StoredFolder(result.folder).quantization["ignore"] == ["lm_head"]


def test_refusals(model: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgeqError):
        compiled(model, tmp_path / "a", "vllm", "int2-weight")
