from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgeq
from edgeq.api import artefact_path
from edgeq.benchmarks.options import BenchOptions
from edgeq.compiler.quantize.dispatch import check_scheme
from edgeq.errors import DataError, ModelError, OutputExistsError, StrictError, TargetError, UsageError
from edgeq.manifest import Manifest
from edgeq.targets.onnxruntime.capabilities import CAPABILITIES
from edgeq.targets.onnxruntime.target import OnnxRuntimeTarget

FAST = BenchOptions(parts=("size", "accuracy"))


def conv_net(path: Path, seed: int = 0) -> Path:
    """Conv, Relu, pooling and a Gemm of 4 classes on [N, 3, 12, 12]."""
    rng = np.random.default_rng(seed)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32) * 0.2, name)

    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["y"], name="head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [weights("w1", 16, 3, 3, 3), weights("b1", 16), weights("w2", 4, 16), weights("b2", 4)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def data(count: int = 24) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {"x": rng.standard_normal((count, 3, 12, 12)).astype(np.float32)}


def compiled(folder: Path, **options: Any) -> edgeq.CompileResult:
    model = conv_net(folder / "net.onnx")
    chosen: dict[str, Any] = {"scheme": "int8-static", "calibration": data(), "bench": FAST, **options}
    return edgeq.compile(model, output=folder / "out", **chosen)


@pytest.mark.parametrize("scheme", CAPABILITIES.schemes)
def test_the_same_inputs_give_the_same_bytes(tmp_path: Path, scheme: str) -> None:
    conv_net(tmp_path / "net.onnx")
    contents = []
    for name in ("first", "second"):
        result = edgeq.compile(
            tmp_path / "net.onnx", scheme=scheme, calibration=data(), output=tmp_path / name, bench=None
        )
        contents.append({p.name: p.read_bytes() for p in result.folder.iterdir() if p.is_file()})
    assert contents[0].keys() == {"model.onnx", "edgeq.json", "report.html"}
    assert contents[0] == contents[1]


def test_the_manifest_differs_between_runs_only_in_what_was_measured(tmp_path: Path) -> None:
    first = compiled(tmp_path, evaluation=data())
    again = compiled(tmp_path, evaluation=data(), force=True)
    texts = [r.manifest.model_copy(update={"measured": None}).to_text() for r in (first, again)]
    assert texts[0] == texts[1]


def test_budgets_become_verdicts_and_the_artefact_stays(tmp_path: Path) -> None:
    result = compiled(tmp_path, evaluation=data(), budgets=["size <= 1KB", "sqnr >= 20"])
    assert [v.status for v in result.verdicts] == ["fail", "pass"]
    assert not result.passed
    assert (result.folder / "model.onnx").exists()
    assert json.loads((result.folder / "edgeq.json").read_text())["measured"]["verdicts"]


def test_a_budget_on_latency_that_was_not_measured_is_missed(tmp_path: Path) -> None:
    result = compiled(tmp_path, budgets=["latency_p50 <= 10s"])
    assert [v.status for v in result.verdicts] == ["not-measured"]


def test_artefact_path_follows_output_and_target() -> None:
    assert artefact_path("a/net.onnx", "onnxruntime", None) == Path("build/net-onnxruntime")
    assert artefact_path("pkg.models:build", "onnxruntime", None) == Path("build/models-build-onnxruntime")
    assert artefact_path("x", "onnxruntime", "out/m") == Path("out/m-onnxruntime")
    for nameless in ("", ".", "/"):
        with pytest.raises(UsageError, match="has no name"):
            artefact_path("x", "onnxruntime", nameless)


@pytest.mark.parametrize("samples", [3, 12])
def test_a_model_of_a_fixed_batch_takes_any_number_of_samples(tmp_path: Path, samples: int) -> None:
    model = onnx.load(conv_net(tmp_path / "net.onnx"))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 8
    onnx.save(model, tmp_path / "fixed.onnx")
    result = edgeq.compile(
        tmp_path / "fixed.onnx", output=tmp_path / "out", scheme="int8-static",
        calibration=data(samples), evaluation=data(samples), bench=FAST,
    )  # fmt: skip
    assert result.measurements["sqnr"].value > 20


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scheme": "int3"}, UsageError, "Unknown scheme 'int3'"),
        ({"target": "toaster"}, UsageError, "Unknown target 'toaster'"),
        ({"scheme": None}, UsageError, "No scheme was given"),
        ({"calibration": None}, DataError, "needs calibration data and none was given"),
        ({"metrics": ["top1"]}, UsageError, "needs evaluation data and none was given"),
        ({"evaluation": data(), "metrics": ["top1"]}, UsageError, "label"),
        ({"evaluation": data(), "metrics": ["perplexity"]}, UsageError, "perplexity"),
        ({"bench": None, "budgets": ["size <= 1MB"]}, UsageError, "measuring is switched off"),
        ({"recipe": edgeq.Recipe(scheme="fp16")}, UsageError, "both given"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_written(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        compiled(tmp_path, **options)
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def test_an_existing_output_needs_force(tmp_path: Path) -> None:
    compiled(tmp_path)
    with pytest.raises(OutputExistsError):
        compiled(tmp_path)


def test_a_failed_compile_leaves_the_old_artefact(tmp_path: Path) -> None:
    before = (compiled(tmp_path).folder / "model.onnx").read_bytes()
    broken = data()
    broken["x"][5, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match="sample 5"):
        compiled(tmp_path, calibration=broken, force=True)
    assert (tmp_path / "out-onnxruntime" / "model.onnx").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "out-onnxruntime"]


def test_strict_refuses_nodes_that_run_in_float(tmp_path: Path) -> None:
    path = tmp_path / "transposed.onnx"
    weights = np.random.default_rng(0).standard_normal((8, 8, 3, 3)).astype(np.float32)
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], name="up")
    graph = helper.make_graph(
        [node],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8, 8, 8])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    samples = {"x": np.random.default_rng(1).standard_normal((4, 8, 6, 6)).astype(np.float32)}
    options: dict[str, Any] = {"scheme": "int8-static", "calibration": samples, "bench": None}
    result = edgeq.compile(path, output=tmp_path / "out", **options)
    assert [n.actual for n in result.nodes] == ["fp32"]
    with pytest.raises(StrictError, match=r"ConvTranspose 'up' runs in fp32"):
        edgeq.compile(path, output=tmp_path / "strict", strict=True, **options)
    assert not (tmp_path / "strict-onnxruntime").exists()


def test_bench_measures_again_against_the_source(tmp_path: Path) -> None:
    folder = compiled(tmp_path).folder
    result = edgeq.bench(folder, evaluation=data(), budgets=["size <= 300%", "sqnr >= 20"], options=FAST)
    assert result.passed
    assert Manifest.read(folder).measured == result.manifest.measured


def test_bench_says_when_the_source_is_another_model_now(tmp_path: Path) -> None:
    folder = compiled(tmp_path).folder
    conv_net(tmp_path / "net.onnx", seed=7)
    result = edgeq.bench(folder, budgets=["size <= 300%"], options=FAST)
    assert not result.passed
    assert any("is not the model that was compiled" in note for note in result.measurements.notes)


def test_bench_takes_a_baseline_by_name(tmp_path: Path) -> None:
    folder = compiled(tmp_path).folder
    (tmp_path / "net.onnx").rename(tmp_path / "moved.onnx")
    result = edgeq.bench(folder, baseline=tmp_path / "moved.onnx", budgets=["size <= 300%"], options=FAST)
    assert result.passed


def test_bench_refuses_files_that_were_changed(tmp_path: Path) -> None:
    folder = compiled(tmp_path).folder
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ModelError, match=r"model\.onnx"):
        edgeq.bench(folder, options=FAST)


def test_a_target_refuses_schemes_that_it_lacks() -> None:
    lacking = replace(OnnxRuntimeTarget().capabilities(), schemes=("fp32", "fp16"))
    with pytest.raises(TargetError, match=r"has no scheme 'int8-static'\. It has: fp32, fp16"):
        check_scheme("int8-static", lacking)
