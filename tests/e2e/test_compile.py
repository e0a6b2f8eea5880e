"""``edgeq compile``, ``bench`` and ``inspect`` as a user runs them."""

from __future__ import annotations

import json

import onnxruntime as ort
import pytest

from tests.support.cli import Workspace

ACCURACY = ("--measure", "size", "--measure", "accuracy")
DATA = ("--evaluation", "data.npz")
STATIC = ("--scheme", "int8-static", "--calibration", "calib.npz")


@pytest.mark.parametrize(
    "scheme", ["fp32", "fp16", "int8-static", "int8-dynamic", "int8-weight", "int4-weight"]
)
def test_every_scheme_gives_an_artefact_that_runs(work: Workspace, scheme: str) -> None:
    calibration = ("--calibration", "calib.npz") if scheme == "int8-static" else ()
    run = work.edgeq("compile", "model.onnx", "--scheme", scheme, *calibration, *DATA, *ACCURACY, "--json")
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    assert document["passed"] is True
    folder = work.folder / "build" / "model-onnxruntime"
    assert document["folder"] == str(folder.relative_to(work.folder))
    assert document["manifest"]["recipe"]["scheme"] == scheme
    assert sorted(p.name for p in folder.iterdir()) == ["edgeq.json", "model.onnx", "report.html"]
    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["x"]
    assert work.leftovers() == []


def test_the_whole_way_with_every_measurement_and_bench_again(work: Workspace) -> None:
    budgets = ("--budget", "size <= 60%", "--budget", "top1>=90%", "--budget", "latency_p95 <= 10s")
    run = work.edgeq("compile", "model.onnx", *STATIC, *DATA, "--quick", *budgets, "--output", "out/m")
    assert run.returncode == 0, run.stderr
    for word in ("size", "latency p50", "latency p99", "speedup", "load time", "peak memory", "top1", "sqnr"):
        assert word in run.stdout
    assert run.stdout.count("✓") == 3
    assert "runs in" in run.stdout
    assert "artefact  out/m-onnxruntime" in run.stdout
    again = work.edgeq("bench", "out/m-onnxruntime", *DATA, "--quick", "-b", "speedup >= 1000x", "--json")
    assert again.returncode == 1, again.stderr
    document = json.loads(again.stdout)
    assert document["passed"] is False
    assert [v["status"] for v in document["manifest"]["measured"]["verdicts"]] == ["fail"]


def test_the_same_compile_gives_the_same_bytes(work: Workspace) -> None:
    for name in ("a", "b"):
        assert work.edgeq("compile", "model.onnx", *STATIC, "--no-bench", "-o", name).returncode == 0
    for file in ("model.onnx", "edgeq.json"):
        first, second = ((work.folder / f"{n}-onnxruntime" / file).read_bytes() for n in ("a", "b"))
        assert first == second


def test_a_missed_budget_exits_with_1_and_says_why(work: Workspace) -> None:
    run = work.edgeq("compile", "model.onnx", "--scheme", "fp32", *ACCURACY, *DATA, "-b", "size <= 1KB")
    assert run.returncode == 1
    assert "✗ size is" in run.stdout
    assert "the budget is at most 1 KB: missed." in run.stdout
    assert (work.folder / "build" / "model-onnxruntime" / "edgeq.json").is_file()


def test_a_budget_on_something_not_measured_is_missed(work: Workspace) -> None:
    run = work.edgeq(
        "compile", "model.onnx", "--scheme", "fp32", "--measure", "size", "-b", "speedup >= 0.1x"
    )
    assert run.returncode == 1
    assert "speedup was not measured" in run.stdout


def test_quiet_says_nothing_but_the_result(work: Workspace) -> None:
    run = work.edgeq("compile", "model.onnx", "--scheme", "fp32", "--measure", "size", "--quiet")
    assert (run.returncode, run.stderr) == (0, "")
    assert "size" in run.stdout


def test_progress_goes_to_stderr_in_plain_lines(work: Workspace) -> None:
    run = work.edgeq("compile", "model.onnx", *STATIC, "--no-bench", "--json")
    assert run.returncode == 0
    assert "Calibrating (16)\n" in run.stderr
    assert "\x1b" not in run.stderr
    assert "\r" not in run.stderr
    json.loads(run.stdout)


def test_exclude_keeps_nodes_in_float(work: Workspace) -> None:
    run = work.edgeq("compile", "model.onnx", *STATIC, "--no-bench", "--exclude", "op:Gemm", "--json")
    assert run.returncode == 0, run.stderr
    nodes = {n["op_type"]: n for n in json.loads(run.stdout)["manifest"]["nodes"]}
    assert nodes["Gemm"]["actual"] == "fp32"
    assert nodes["Conv"]["actual"] == "int8"


def test_inspect_an_artefact_and_a_model(work: Workspace) -> None:
    assert work.edgeq("compile", "model.onnx", *STATIC, "--measure", "size").returncode == 0
    artefact = work.edgeq("inspect", "build/model-onnxruntime", "--nodes")
    assert artefact.returncode == 0, artefact.stderr
    assert "model.onnx → onnxruntime, int8-static" in artefact.stdout
    assert "verified" in artefact.stdout
    assert "Conv" in artefact.stdout
    model = work.edgeq("inspect", "model.onnx")
    assert model.returncode == 0, model.stderr
    assert "[batch, 3, 8, 8]" in model.stdout
    assert "ai.onnx 17" in model.stdout
    document = json.loads(work.edgeq("inspect", "model.onnx", "--json").stdout)
    assert document["ops"]["Conv"] == 2
    assert document["inputs"] == [{"dtype": "float32", "name": "x", "shape": ["batch", 3, 8, 8]}]


def test_inspect_notices_a_changed_file(work: Workspace) -> None:
    assert work.edgeq("compile", "model.onnx", "--scheme", "fp32", "--no-bench").returncode == 0
    file = work.folder / "build" / "model-onnxruntime" / "model.onnx"
    file.write_bytes(file.read_bytes() + b" ")
    run = work.edgeq("inspect", "build/model-onnxruntime")
    assert run.returncode == 3
    assert "is not the file that edgeq wrote" in run.stderr
