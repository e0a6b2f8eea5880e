"""INT4 weights by Neural Compressor: what is in the folder, what it computes, and who can load it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.compiler.load.hugging_face import float_module
from edgeq.compiler.model import Source
from edgeq.compiler.pipeline import refuse_missed
from edgeq.errors import ConfigError, DataError, ModelError, TargetError, UsageError
from edgeq.targets.neural_compressor.target import NeuralCompressorTarget
from tests.support.int4_folders import LENGTH, compiled, source, tokens
from tests.support.weight_models import sqnr

pytest.importorskip("neural_compressor")
pytest.importorskip("optimum")

TARGET = NeuralCompressorTarget()
BLOCK_LAYERS = 7 * 2
needs_accelerate = pytest.mark.skipif(find_spec("accelerate") is None, reason="GPTQ needs accelerate")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return source(tmp_path_factory.mktemp("hf") / "llama", "llama")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return source(tmp_path_factory.mktemp("hf") / "bert", "bert")


@pytest.fixture(scope="module")
def rtn(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return compiled(llama, tmp_path_factory.mktemp("out") / "rtn")


def stored(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return dict(load_file(folder / "model.safetensors"))


def float_outputs(folder: Path, task: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
    import torch

    model = float_module(Source("hf", str(folder), "", {"task": task}))
    with torch.no_grad():
        logits = model(**{name: torch.from_numpy(a) for name, a in inputs.items()}).logits
    return np.asarray(logits.numpy())


def outputs(folder: Path, inputs: dict[str, np.ndarray]) -> np.ndarray:
    runner = TARGET.runner(folder, threads=1)
    found = runner.run(inputs)["logits"]
    runner.close()
    return found


def test_the_file_holds_four_bits_per_weight(rtn: Any) -> None:
    tensors = stored(rtn.folder)
    name = "model.layers.0.mlp.down_proj"
    assert tensors[f"{name}.qweight"].dtype == np.int32
    assert tensors[f"{name}.qweight"].shape == (128 // 8, 64)
    assert tensors[f"{name}.scales"].dtype == np.float16
    assert tensors[f"{name}.scales"].shape == (128 // 32, 64)
    assert f"{name}.weight" not in tensors
    assert f"{name}.bias" not in tensors
    assert tensors["model.embed_tokens.weight"].dtype == np.float16
    assert not [key for key in tensors if "scale_bf16" in key]


def test_every_layer_has_the_group_index_that_neural_compressor_leaves_out(rtn: Any) -> None:
    found = {key: value for key, value in stored(rtn.folder).items() if key.endswith(".g_idx")}
    assert len(found) == BLOCK_LAYERS
    for name, index in found.items():
        inputs = 128 if "down_proj" in name else 64
        np.testing.assert_array_equal(index, np.arange(inputs) // 32)


def test_every_layer_is_in_the_table_as_it_is_stored(rtn: Any) -> None:
    nodes = {node.name: node for node in rtn.manifest.nodes}
    assert [n.actual for n in nodes.values()].count("int4") == BLOCK_LAYERS
    assert not any(node.missed for node in nodes.values())
    assert nodes["lm_head"].actual == "fp16"
    assert "repeated blocks" in nodes["lm_head"].reason
    assert nodes["model.embed_tokens"].actual == "fp16"
    # --strict: the head is no part of the format
    refuse_missed(rtn.manifest.nodes)


def test_a_layer_that_is_not_stored_is_missed(rtn: Any, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    from edgeq.compiler.plan import NodePlan, Plan

    tensors = stored(rtn.folder)
    name = "model.layers.0.mlp.down_proj"
    del tensors[f"{name}.g_idx"]
    save_file(tensors, tmp_path / "model.safetensors")
    plan = Plan(nodes={name: NodePlan(name, "Linear", "int4", "", asked=True)})
    assert TARGET.verify(tmp_path, plan)[0].missed


def test_the_folder_computes_what_the_model_in_memory_did(rtn: Any) -> None:
    assert [check.passed for check in TARGET.check(rtn.folder, threads=1)] == [True]


def test_a_changed_weight_does_not_verify(rtn: Any, tmp_path: Path) -> None:
    import shutil

    from safetensors.numpy import save_file

    shutil.copytree(rtn.folder, tmp_path / "copy")
    tensors = stored(rtn.folder)
    tensors["model.layers.1.mlp.up_proj.scales"] = tensors["model.layers.1.mlp.up_proj.scales"] * 2
    save_file(tensors, tmp_path / "copy" / "model.safetensors")
    assert [check.passed for check in TARGET.check(tmp_path / "copy", threads=1)] == [False]


def test_numbers_are_close_to_the_float_model(rtn: Any, llama: Path) -> None:
    inputs = tokens(2)
    assert sqnr(float_outputs(llama, "text-generation", inputs), outputs(rtn.folder, inputs)) > 15


def test_a_fresh_process_runs_it_without_neural_compressor(rtn: Any) -> None:
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from edgeq.targets.neural_compressor.target import NeuralCompressorTarget as T\n"
        "runner = T().runner(Path(sys.argv[1]), threads=1)\n"
        "ids = np.zeros((1, 5), np.int64)\n"
        "out = runner.run({'input_ids': ids, 'attention_mask': ids + 1, 'position_ids': ids})\n"
        "print(out['logits'].shape, 'neural_compressor' in sys.modules, 'onnx_ir' in sys.modules)\n"
    )
    found = subprocess.run(
        [sys.executable, "-P", "-c", code, str(rtn.folder)], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "(1, 5, 96) False False"


def test_one_bit_more_of_freedom_is_closer(llama: Path, tmp_path: Path) -> None:
    inputs = tokens(2)
    wanted = float_outputs(llama, "text-generation", inputs)
    coarse = compiled(llama, tmp_path / "coarse", block_size=64)
    fine = compiled(llama, tmp_path / "fine", block_size=16, symmetric_weights=False)
    assert sqnr(wanted, outputs(fine.folder, inputs)) > sqnr(wanted, outputs(coarse.folder, inputs)) + 1


def test_awq_moves_scales_where_rtn_would_be_the_same(rtn: Any, llama: Path, tmp_path: Path) -> None:
    found = compiled(llama, tmp_path / "awq", "awq", calibration=tokens(8))
    assert any("input_layernorm" in note and "up_proj" in note for note in found.manifest.notes)
    norms = "model.layers.0.input_layernorm.weight"
    assert not np.array_equal(stored(found.folder)[norms], stored(rtn.folder)[norms])
    inputs = tokens(2)
    assert sqnr(float_outputs(llama, "text-generation", inputs), outputs(found.folder, inputs)) > 15


@needs_accelerate
def test_gptq_keeps_excluded_layers_in_float(llama: Path, tmp_path: Path) -> None:
    found = compiled(llama, tmp_path / "gptq", "gptq", calibration=tokens(8), exclude=["*.down_proj"])
    nodes = {node.name: node.actual for node in found.manifest.nodes}
    assert nodes["model.layers.0.mlp.down_proj"] == "fp16"
    assert nodes["model.layers.0.mlp.up_proj"] == "int4"
    inputs = tokens(2)
    assert sqnr(float_outputs(llama, "text-generation", inputs), outputs(found.folder, inputs)) > 15


def test_a_classifier(bert: Path, tmp_path: Path) -> None:
    found = compiled(bert, tmp_path / "bert")
    nodes = {node.name: node for node in found.manifest.nodes}
    assert nodes["bert.encoder.layer.0.attention.self.query"].actual == "int4"
    assert nodes["classifier"].actual == "fp16"
    inputs = tokens(2, "bert")
    wanted = float_outputs(bert, "text-classification", inputs)
    assert outputs(found.folder, inputs).shape == wanted.shape == (2, 3)


def test_neural_compressor_loads_the_folder(rtn: Any) -> None:
    pytest.importorskip("accelerate")
    import torch
    from neural_compressor.torch.quantization import load

    model = load(str(rtn.folder), format="huggingface", torch_dtype=torch.float32)
    inputs = tokens(1)
    with torch.no_grad():
        found = model(**{name: torch.from_numpy(array) for name, array in inputs.items()}).logits.numpy()
    assert sqnr(outputs(rtn.folder, inputs), found) > 60


def test_layers_whose_inputs_are_no_whole_blocks(llama: Path, tmp_path: Path) -> None:
    found = compiled(llama, tmp_path / "blocks", block_size=128)
    nodes = {node.name: node for node in found.manifest.nodes}
    assert nodes["model.layers.0.mlp.down_proj"].actual == "int4"
    assert "no whole blocks of 128" in nodes["model.layers.0.mlp.up_proj"].reason


def test_refusals(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs calibration data"):
        compiled(llama, tmp_path / "a", "awq")
    with pytest.raises(TargetError, match="No layer"):
        compiled(llama, tmp_path / "b", block_size=256)
    with pytest.raises(UsageError, match="matches no node"):
        compiled(llama, tmp_path / "c", exclude=["nothing"])
    with pytest.raises(ConfigError, match="cannot be 'hqq'"):
        compiled(llama, tmp_path / "d", "hqq")


def test_a_torch_module_is_refused(tmp_path: Path) -> None:
    import torch

    import edgeq

    with pytest.raises(TargetError, match="needs a Hugging Face folder"):
        edgeq.compile(
            torch.nn.Sequential(torch.nn.Linear(64, 64)).eval(),
            target="neural-compressor",
            scheme="int4-weight",
            example_inputs=(torch.zeros(1, 64),),
            output=tmp_path / "out",
            bench=None,
        )


def test_a_damaged_folder(rtn: Any, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(rtn.folder, tmp_path / "copy")
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    config["num_hidden_layers"] = 3
    (tmp_path / "copy" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="does not fit"):
        TARGET.runner(tmp_path / "copy")
    (tmp_path / "copy" / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(ModelError, match="cannot be loaded"):
        TARGET.runner(tmp_path / "copy")


def test_wrong_inputs(rtn: Any) -> None:
    runner = TARGET.runner(rtn.folder, threads=1)
    with pytest.raises(DataError, match="missing"):
        runner.run({"input_ids": np.zeros((1, LENGTH), np.int64)})
    with pytest.raises(TargetError, match="fails on the inputs"):
        runner.run({name: array + 1000 for name, array in tokens(1).items()})
    runner.close()
    with pytest.raises(TargetError, match="closed"):
        runner.run(tokens(1))
