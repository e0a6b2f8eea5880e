"""``edgeq lint`` as a command: what it prints, its exit codes, its errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import edgeq
from edgeq.errors import ModelError, TargetError, UsageError
from tests.support.cli import Workspace, make_workspace
from tests.support.foreign_models import quantize_foreign
from tests.support.qdq_models import INT4, QDQ, conv
from tests.support.tensorrt_lint_cases import convolution, product


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The tiny model, quantized by ONNX Runtime in several ways."""
    work = make_workspace(tmp_path_factory.mktemp("foreign"))
    quantize_foreign(work.folder / "model.onnx")
    return work


def test_the_default_of_onnxruntime_is_refused(quantized: Workspace) -> None:
    run = quantized.edgeq("lint", "default.onnx", "--target", "tensorrt")
    assert run.returncode == 1, run.stderr
    assert "fails to build (" in run.stdout
    assert "zero-point" in run.stdout
    assert "int32-bias" in run.stdout
    assert "QuantizeBias=False" in run.stdout
    assert run.stdout.splitlines()[-1].startswith("default.onnx for tensorrt: ")
    assert run.stderr == ""


def test_a_model_without_faults_exits_with_0(quantized: Workspace) -> None:
    run = quantized.edgeq("lint", "symmetric.onnx", "--target", "tensorrt", "--sm", "86,120", "--json")
    assert run.returncode == 0, run.stdout
    document = json.loads(run.stdout)
    assert document["passed"] is True
    assert {finding["outcome"] for finding in document["findings"]} <= {"slow", "note"}


def test_an_unquantized_model_has_no_findings(quantized: Workspace) -> None:
    run = quantized.edgeq("lint", "model.onnx", "-t", "tensorrt", "--dimension", "batch=1..8")
    assert run.returncode == 0, run.stderr
    assert run.stdout == "model.onnx for tensorrt: nothing found\n"


def test_many_findings_of_one_rule_are_cut(work: Workspace) -> None:
    g = QDQ()
    x = g.input("x", 1, 32, 16, 16)
    for index in range(13):
        x = conv(g, x, g.weight(f"w{index}", (32, 32, 3, 3), zero=1), f"conv{index}")
    onnx.save(g.model(x), work.folder / "many.onnx")
    run = work.edgeq("lint", "many.onnx", "-t", "tensorrt")
    assert run.stdout.count("zero-point") == 11
    assert "and 3 more: see --json" in run.stdout
    assert "13 fails" in run.stdout


def test_findings_are_in_the_order_of_the_graph(work: Workspace) -> None:
    onnx.save(convolution({"zero": np.uint8(0)}, {"axis": 1}), work.folder / "two.onnx")
    result = edgeq.lint(work.folder / "two.onnx", target="tensorrt", target_options={"sm": "75"})
    assert [(f.rule, f.node) for f in result.findings] == [
        ("uint8-activations", "x_q"),
        ("weight-axis", "op"),
        ("sm75-conv", "op"),
    ]
    assert result.counts == {"wrong": 1, "float": 2}
    assert not result.passed


def test_the_compute_capabilities_decide(work: Workspace) -> None:
    onnx.save(product(None, {"axis": 0, "block": 64, "dtype": INT4}), work.folder / "int4.onnx")
    assert edgeq.lint(work.folder / "int4.onnx", target="tensorrt", target_options={"sm": "86"}).passed
    old = work.edgeq("lint", "int4.onnx", "-t", "tensorrt", "-O", "sm=75,86")
    assert old.returncode == 1
    assert "SM75 has no INT4" in old.stdout


def test_external_data_is_not_read(work: Workspace) -> None:
    """A sparse file of 3 GB in place of the weights: reading it would take longer than the limit of a run."""
    model = convolution({}, {})
    codes = next(t for t in model.graph.initializer if t.name == "w_c")
    del codes.dims[:]
    codes.dims.extend([32, 100_000_000, 1, 1])
    codes.ClearField("raw_data")
    codes.data_location = onnx.TensorProto.EXTERNAL
    codes.external_data.add(key="location", value="weights.bin")
    onnx.save(model, work.folder / "large.onnx")
    with (work.folder / "weights.bin").open("wb") as file:
        file.truncate(3_200_000_000)
    run = work.edgeq("lint", "large.onnx", "-t", "tensorrt", "--json")
    assert run.returncode == 0, run.stdout
    assert json.loads(run.stdout)["findings"] == []


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty"), (b"PK\x03\x04", "zip archive"), (b"nonsense" * 9, "is not an ONNX model")],
)
def test_bad_files(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=said):
        edgeq.lint(tmp_path / "bad.onnx", target="tensorrt")


def test_a_missing_file(work: Workspace) -> None:
    run = work.edgeq("lint", "none.onnx", "-t", "tensorrt")
    assert run.returncode == 3
    assert "does not exist" in run.stderr


@pytest.mark.parametrize("target", ["coreml", "onnxruntime"])
def test_a_target_without_a_linter(work: Workspace, target: str) -> None:
    with pytest.raises(TargetError, match=r"no linter.*tensorrt"):
        edgeq.lint(work.folder / "model.onnx", target=target)


@pytest.mark.parametrize(
    ("model", "target", "options", "said"),
    [
        ("model.onnx", "nowhere", {}, "Unknown target"),
        ("model.onnx", "tensorrt", {"sm": "99"}, "no compute capability"),
        ("model.onnx", "tensorrt", {"speed": "11"}, "has no option"),
        ("", "tensorrt", {}, "no ONNX file"),
    ],
)
def test_wrong_usage(work: Workspace, model: str, target: str, options: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        edgeq.lint(work.folder / model, target=target, target_options=options)


def test_a_target_is_needed(work: Workspace) -> None:
    run = work.edgeq("lint", "model.onnx")
    assert run.returncode == 2
    assert "Missing option" in run.stderr


def test_a_model_that_onnxruntime_runs_is_only_read(quantized: Workspace) -> None:
    """Linting changes nothing: the file is the same, and still runs."""
    path = quantized.folder / "default.onnx"
    before = path.read_bytes()
    edgeq.lint(str(path), target="tensorrt")
    assert path.read_bytes() == before
    ort.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_the_result_knows_what_it_was_asked(work: Workspace) -> None:
    path = Path(work.folder / "model.onnx")
    result = edgeq.lint(path, target="tensorrt", target_options={"dimension.batch": "1..8"})
    assert result == edgeq.LintResult(str(path), "tensorrt", ())
