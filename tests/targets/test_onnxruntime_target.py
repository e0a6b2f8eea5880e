from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgeq.compiler.model import Model
from edgeq.compiler.plan import NodePlan, Plan
from edgeq.compiler.quantize.fp32 import quantize_fp32
from edgeq.compiler.recipe import Override, Recipe
from edgeq.errors import DataError, TargetError, UsageError
from edgeq.targets.base import BuildJob, Runner, Target
from edgeq.targets.onnxruntime.probe import Probe, probe
from edgeq.targets.onnxruntime.runner import OnnxRuntimeRunner
from edgeq.targets.registry import get_target
from tests.support.weight_models import CAPS, build, node, random


@pytest.fixture
def target() -> Target:
    return get_target("onnxruntime")


def product() -> Model:
    nodes = [node("MatMul", ["x", "w"], ["h"], name="mm"), node("Relu", ["h"], ["y"], name="relu")]
    return build(nodes, {"x": ("f", ["N", 8])}, {"w": random(8, 4)})


def artefact(target: Target, folder: Path, model: Model | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    target.build(BuildJob(model or product(), Plan(), Recipe(scheme="fp32")), folder)
    return folder


def test_it_is_registered_and_ready(target: Target) -> None:
    assert (target.name, target.extra, target.runner_kind()) == ("onnxruntime", None, "runtime")
    availability = target.availability()
    assert availability.ready
    assert availability.detail.startswith("onnxruntime ")
    assert target.capabilities().block_sizes == (16, 32, 64, 128, 256)


def test_it_builds_runs_and_closes(target: Target, tmp_path: Path) -> None:
    result = target.build(BuildJob(product(), Plan(), Recipe(scheme="fp32")), tmp_path)
    assert result.files == ("model.onnx",)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx"]
    runner: Runner = target.runner(tmp_path, threads=1)
    assert [(s.name, s.dtype, s.shape) for s in runner.inputs] == [("x", np.dtype("f4"), ("N", 8))]
    x = random(3, 8, seed=1)
    np.testing.assert_allclose(runner.run({"x": x})["y"], np.maximum(x @ random(8, 4), 0), rtol=1e-5)
    runner.close()
    with pytest.raises(TargetError, match="closed"):
        runner.run({"x": x})


def test_exporters_traces_are_not_in_the_artefact(target: Target, tmp_path: Path) -> None:
    model = product()
    for n in model.ir.graph:
        n.metadata_props["pkg.torch.onnx.stack_trace"] = "File /home/someone/secret.py"
    data = (artefact(target, tmp_path, model) / "model.onnx").read_bytes()
    assert b"secret" not in data
    assert data == (artefact(target, tmp_path / "again", product()) / "model.onnx").read_bytes()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "The input 'x' is missing. The model wants: x float32[N, 8]."),
        (
            {"x": np.zeros((1, 8), np.float32), "z": np.zeros(1)},
            "The model has no input 'z'. The model wants: x float32[N, 8].",
        ),
        ({"x": np.zeros((1, 8))}, "The input 'x' is float64, the model wants float32. Convert the array."),
        (
            {"x": np.zeros((1, 9), np.float32)},
            "The input 'x' has the shape [1, 9], the model wants [N, 8]. Reshape the data.",
        ),
        (
            {"x": np.zeros(8, np.float32)},
            "The input 'x' has the shape [8], the model wants [N, 8]. Reshape the data.",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused(
    target: Target, tmp_path: Path, inputs: dict[str, np.ndarray], message: str
) -> None:
    runner = target.runner(artefact(target, tmp_path), threads=1)
    with pytest.raises(DataError) as caught:
        runner.run(inputs)
    assert str(caught.value) == message


def test_a_failure_while_running_is_one_sentence(
    target: Target, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = build([node("Add", ["a", "b"], ["y"])], {"a": ("f", ["N"]), "b": ("f", ["M"])}, {})
    runner = target.runner(artefact(target, tmp_path, model), threads=1)
    with pytest.raises(TargetError) as caught:
        runner.run({"a": np.zeros(2, np.float32), "b": np.zeros(3, np.float32)})
    message = str(caught.value)
    assert message.startswith("ONNX Runtime fails on the inputs a[2], b[3]: ")
    assert "\n" not in message
    assert "/onnxruntime/" not in message
    assert capfd.readouterr() == ("", ""), "ONNX Runtime's own log is noise"


def test_models_that_cannot_be_loaded_are_refused(target: Target, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="There is no ONNX model at"):
        target.runner(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(TargetError, match=r"ONNX Runtime cannot load model\.onnx"):
        target.runner(tmp_path)
    with pytest.raises(TargetError, match=r"model\.onnx is no ONNX model|cannot load"):
        target.verify(tmp_path, Plan())


def test_an_unknown_operator_fails_in_build_with_its_name(target: Target, tmp_path: Path) -> None:
    model = product()
    model.ir.opset_imports["my.domain"] = 1
    relu = model.ir.graph[1]
    relu.domain, relu.op_type = "my.domain", "Magic"
    with pytest.raises(TargetError, match="Magic"):
        target.build(BuildJob(model, Plan(), Recipe(scheme="fp32")), tmp_path)


def test_zero_threads_are_refused(target: Target, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="0 threads"):
        target.runner(artefact(target, tmp_path), threads=0)


def test_outputs_that_are_no_tensors_are_refused(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> '
        "g (float[2] x) => (seq(float[2]) y) {y = SequenceConstruct(x)}"
    )
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(TargetError, match="only tensors can be measured"):
        OnnxRuntimeRunner(tmp_path / "model.onnx")


def test_weights_in_a_file_of_their_own_are_verified_without_copies(target: Target, tmp_path: Path) -> None:
    model = build(
        [node("MatMul", ["x", "w"], ["y"], name="mm")], {"x": ("f", ["N", 64])}, {"w": random(64, 64)}
    )
    ir.save(model.ir, tmp_path / "model.onnx", external_data="model.onnx.data")
    plan = Plan(nodes={"mm": NodePlan("mm", "MatMul", "fp32", "the scheme is fp32", False)})
    result = target.verify(tmp_path, plan)[0]
    assert (result.actual, result.kernel) == ("fp32", "MatMul")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]


def test_fp32_leaves_every_node_alone() -> None:
    quantized = quantize_fp32(product(), CAPS, Recipe(scheme="fp32"))
    assert {(p.precision, p.reason) for p in quantized.plan.nodes.values()} == {
        ("fp32", "the scheme is fp32")
    }
    override = (Override(match="mm", precision="int8"),)
    with pytest.raises(UsageError, match="the scheme fp32 quantizes nothing"):
        quantize_fp32(product(), CAPS, Recipe(scheme="fp32", overrides=override))


def test_the_probe_measures_this_cpu() -> None:
    found = probe()
    assert 0.05 < found.conv_speedup < 50
    assert 0.05 < found.matmul_speedup < 50
    assert f"convolution {found.conv_speedup:.1f}x" in found.sentence


def test_what_the_probe_says() -> None:
    assert "may be slower" in Probe(0.8, 1.5, False).sentence
    assert "may be slower" not in Probe(2.0, 1.5, False).sentence
    assert "saturate" in Probe(2.0, 1.5, True).sentence
    assert "saturate" not in Probe(2.0, 1.5, False).sentence
