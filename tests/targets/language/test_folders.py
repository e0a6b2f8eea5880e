"""What all formats of folders share: companions, proofs, damage, determinism."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgeq.compiler.plan import NodePlan, Plan
from edgeq.errors import ModelError
from edgeq.result import CompileResult
from edgeq.targets.base import UNPROVEN
from edgeq.targets.hf_gptq.target import HfGptqTarget
from edgeq.targets.language.shards import LazyTensor, write_shards
from edgeq.targets.language.stored import StoredFolder
from edgeq.verify import verify
from tests.support.checkpoint_folders import compiled, digests, failing, passed
from tests.support.tiny_llama import tiny_llama

Q, K = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.o_proj"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"), shard="50KB")


@pytest.fixture(scope="module")
def result(model: Path, tmp_path_factory: pytest.TempPathFactory) -> CompileResult:
    return compiled(model, tmp_path_factory.mktemp("out") / "a", "hf-gptq", "int4-weight", block_size=32)


@pytest.fixture
def copy(result: CompileResult, tmp_path: Path) -> Path:
    return Path(shutil.copytree(result.folder, tmp_path / "copy"))


def test_the_folder_is_whole(result: CompileResult, model: Path) -> None:
    assert passed(result)
    config = json.loads((result.folder / "config.json").read_text())
    assert (config["dtype"], config["torch_dtype"]) == ("float16", "float16")
    assert str(model) not in (result.folder / "config.json").read_text()
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (result.folder / name).read_bytes() == (model / name).read_bytes()
        assert name in {file.path for file in result.manifest.files}
    sampled = {check.name: check.found for check in result.manifest.checks}
    assert "2 texts of random tokens" in sampled["float32 numbers"]


def test_the_same_bytes_again(result: CompileResult, model: Path, tmp_path: Path) -> None:
    again = compiled(model, tmp_path / "b", "hf-gptq", "int4-weight", block_size=32)
    assert digests(again.folder) == digests(result.folder)


def test_models_of_bfloat16_keep_it(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path / "m", dtype="bfloat16", num_hidden_layers=1)
    found = compiled(model, tmp_path / "a", "hf-gptq", "int4-weight", block_size=32)
    stored = StoredFolder(found.folder)
    assert passed(found)
    assert stored.config["dtype"] == "bfloat16"
    assert stored.tensors["model.norm.weight"].dtype.name == "bfloat16"
    assert stored.tensors[f"{Q}.scales"].dtype.name == "bfloat16"
    actual = {node.name: node.actual for node in found.manifest.nodes}
    assert (actual["lm_head"], actual[Q]) == ("bf16", "int4")


def test_tied_embeddings(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path / "m", tie_word_embeddings=True, num_hidden_layers=1)
    assert "lm_head.weight" not in StoredFolder(model).tensors
    found = compiled(model, tmp_path / "a", "hf-gptq", "int8-weight", block_size=32)
    assert passed(found)
    assert "lm_head.weight" not in StoredFolder(found.folder).tensors


def _rewrite(folder: Path, names: dict[str, str | None]) -> None:
    """Write the weights again, tensors taken from others, or left out."""
    stored = StoredFolder(folder)
    arrays = {name: np.array(stored.array(names.get(name) or name)) for name in stored.tensors}
    kept = [name for name in arrays if names.get(name, name) is not None]
    (folder / "model.safetensors").unlink()
    write_shards(
        [LazyTensor(n, arrays[n].dtype, arrays[n].shape, lambda n=n: arrays[n]) for n in kept], folder
    )


def test_swapped_tensors_are_found(copy: Path) -> None:
    _rewrite(copy, {f"{Q}.qweight": f"{K}.qweight", f"{K}.qweight": f"{Q}.qweight"})
    assert failing(copy) == ["files", "weights", "float32 numbers"]
    assert Q in next(check.found for check in verify(copy).checks if check.name == "weights")


def test_swapped_float_tensors_are_found(copy: Path) -> None:
    _rewrite(copy, {"lm_head.weight": "model.embed_tokens.weight"})
    assert failing(copy) == ["files", "float32 numbers"]


def test_missing_tensors_are_missed(copy: Path) -> None:
    _rewrite(copy, {f"{Q}.scales": None})
    plan = Plan(nodes={Q: NodePlan(Q, "Linear", "int4", "asked", True)})
    (node,) = HfGptqTarget().verify(copy, plan)
    assert (node.actual, node.missed) == (UNPROVEN, True)
    assert "the file has no such weights" in node.reason
    assert {"files", "target", "precision"} <= set(failing(copy))


def test_damaged_files(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot be read"):
        HfGptqTarget().runner(copy)
    (copy / "edgeq-weights.json").write_text("{}")
    with pytest.raises(ModelError, match=r"edgeq-weights\.json cannot be read"):
        HfGptqTarget().check(copy)


def test_generation_goes_on_from_a_cache(result: CompileResult) -> None:
    runner = HfGptqTarget().runner(result.folder, threads=1)
    ids = np.arange(3, 11, dtype=np.int64)
    whole = runner.run({"input_ids": ids[None]})["logits"][0, -1]
    runner.start(ids[:-1], 1)
    assert np.allclose(runner.step(int(ids[-1])), whole, atol=1e-4)
    runner.close()
