"""One model for several targets: loaded once, artefacts as if compiled alone, a row for whatever happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeq
from edgeq import building
from edgeq.benchmarks.options import BenchOptions
from edgeq.comparison import Comparison
from edgeq.errors import ConfigError, DataError, InternalError, ModelError, OutputExistsError, UsageError
from edgeq.manifest import Manifest
from edgeq.targets.base import Availability
from edgeq.targets.openvino.target import OpenVINOTarget
from tests.support.cli import Workspace, make_workspace

pytest.importorskip("openvino")

BOTH = ["onnxruntime", "openvino"]
SIZES = BenchOptions(parts=("size", "accuracy"))
BRIEF = BenchOptions(
    warmup_seconds=0, min_seconds=0, min_iterations=24, max_iterations=48, block_seconds=1e-9,
    processes=1, process_runs=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("model"))


def compared(work: Workspace, output: Path, **options: Any) -> Comparison:
    chosen: dict[str, Any] = {
        "targets": BOTH,
        "scheme": "int8-static",
        "calibration": work.folder / "calib.npz",
        "evaluation": work.folder / "data.npz",
        "bench": SIZES,
        **options,
    }
    return edgeq.compile_many(work.folder / "model.onnx", output=output / "out", **chosen)


@pytest.fixture(scope="module")
def measured(work: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Everything measured, at every core and at one thread."""
    folder = tmp_path_factory.mktemp("measured")
    return compared(work, folder, bench=BRIEF, budgets=["size <= 60%", "top1 >= 50%"], targets=["all-cpu"])


def test_every_artefact_is_measured_beside_the_same_baseline(measured: Comparison) -> None:
    ort, openvino, _ = (row.result for row in measured.rows)
    assert ort is not None
    assert openvino is not None
    for metric in ("size", "latency_p50", "latency_p90", "load_time", "peak_memory", "top1"):
        assert ort.measurements[metric].baseline == openvino.measurements[metric].baseline, metric
        assert ort.measurements[metric].baseline is not None
    for found in (ort, openvino):
        speedup, p50 = found.measurements["speedup"], found.measurements["latency_p50"]
        assert speedup.value == pytest.approx(1 / p50.ratio)
        assert found.compiling is not None
        assert 0 < found.compiling.seconds < 100
        assert found.compiling.peak_memory is not None
        assert found.compiling.peak_memory > 50e6
        assert Manifest.read(found.folder).measured == found.manifest.measured
        assert (found.folder / "report.html").is_file()


def test_times_of_all_artefacts_stem_from_the_same_turns(measured: Comparison) -> None:
    times = [row.times for row in measured.rows if row.times is not None]
    assert len(times) == 2
    assert times[0].shape == times[1].shape
    assert all(row.one_thread["latency_p50"].detail["threads"] == 1 for row in measured.rows[:2])


def test_an_onnx_model_is_a_row_with_the_sentence_that_refuses_it(measured: Comparison) -> None:
    row = measured.rows[2]
    assert (row.candidate.target, row.refused, row.result) == ("neural-compressor", True, None)
    assert "takes PyTorch models" in str(row.error)
    assert "--target openvino" in str(row.error)


def test_budgets_decide_the_winner_and_the_exit_code(measured: Comparison) -> None:
    ort, openvino, refused = measured.rows
    assert [ort.passed, openvino.passed] == [True, False]
    assert measured.winner.name == "onnxruntime"
    assert (openvino.exit_code, refused.exit_code, measured.exit_code) == (1, 4, 1)


def test_the_pages_stand_beside_the_artefacts(measured: Comparison) -> None:
    folder = measured.prefix.parent
    page = (folder / "out-comparison.html").read_text()
    for target in BOTH:
        assert f'href="out-{target}/report.html"' in page
        assert (folder / f"out-{target}" / "report.html").is_file()
    text = (folder / "out-comparison.md").read_text()
    assert "| neural-compressor |" in text
    assert "refused: Target 'neural-compressor' takes PyTorch models" in text
    document = json.loads((folder / "out-comparison.json").read_text())
    assert [row["state"] for row in document["rows"]] == ["compiled", "compiled", "refused"]
    assert document["winner"] == "onnxruntime"
    assert document["rows"][0]["compiling"]["seconds"] > 0
    assert document["rows"][0]["one_thread"]["latency_p50"] > 0


def test_each_artefact_has_the_bytes_that_it_has_alone(work: Workspace, tmp_path: Path) -> None:
    together = compared(work, tmp_path, bench=None, evaluation=None)
    for row in together.rows:
        assert row.result is not None
        assert row.result.compiling is not None
        alone = edgeq.compile(
            work.folder / "model.onnx",
            target=row.candidate.target,
            scheme="int8-static",
            calibration=work.folder / "calib.npz",
            output=tmp_path / "alone",
            bench=None,
        )
        folders = (row.result.folder, alone.folder)
        first, second = ({p.name: p.read_bytes() for p in folder.iterdir()} for folder in folders)
        assert first == second


def test_the_model_is_loaded_and_normalized_once(
    work: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counting(name: str, function: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            calls.append(name)
            return function(*args, **options)

        return call

    for name in ("load", "prepare"):
        monkeypatch.setattr(building, name, counting(name, getattr(building, name)))
    found = compared(work, tmp_path, bench=None, scheme="fp32", calibration=None, evaluation=None)
    assert all(row.result is not None for row in found.rows)
    assert calls == ["load", "prepare"]


def test_a_scheme_that_one_target_has_not_is_its_refusal(work: Workspace, tmp_path: Path) -> None:
    found = compared(work, tmp_path, scheme="int8-dynamic", calibration=None)
    ort, openvino = found.rows
    assert ort.passed
    assert openvino.refused
    assert "has no scheme 'int8-dynamic'" in str(openvino.error)
    assert found.exit_code == 0


def test_a_target_that_is_not_installed_is_a_refusal(
    work: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = Availability(False, "openvino is not installed", "pip install 'edgeq[openvino]'")
    monkeypatch.setattr(OpenVINOTarget, "availability", lambda _self: missing)
    found = compared(work, tmp_path, scheme="fp32", calibration=None)
    assert [row.refused for row in found.rows] == [False, True]
    assert "pip install 'edgeq[openvino]'" in str(found.rows[1].error)
    assert found.exit_code == 0


def test_where_every_target_refuses_nothing_is_loaded(tmp_path: Path) -> None:
    found = edgeq.compile_many(
        tmp_path / "missing.onnx", targets=["openvino,coreml"], scheme="fp8-static", output=tmp_path / "out"
    )
    assert all(row.refused for row in found.rows)
    assert (found.exit_code, found.passed, found.winner.name) == (4, False, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["build", "runner"])
def test_a_defect_of_one_target_does_not_stop_the_others(
    work: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def broken(*_args: Any, **_options: Any) -> Any:
        raise RuntimeError("a defect")

    monkeypatch.setattr(OpenVINOTarget, step, broken)
    found = compared(work, tmp_path, targets=["openvino", "onnxruntime"], scheme="fp32", calibration=None)
    openvino, ort = found.rows
    assert ort.passed
    assert isinstance(openvino.error, InternalError)
    assert "RuntimeError: a defect" in str(openvino.error)
    assert not openvino.refused
    assert found.exit_code == 5
    # What was built and cannot be measured stays, and says that it was not measured.
    assert (tmp_path / "out-openvino").is_dir() == (step == "runner")
    assert openvino.result is None or openvino.result.manifest.measured is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"targets": ["onnxruntime", "toaster"]}, UsageError, "Unknown target 'toaster'"),
        ({"calibration": None}, DataError, "needs calibration data and none was given"),
        ({"target_options": {"mode": "sideways"}}, ConfigError, "'mode' cannot be 'sideways'"),
        ({"target_options": {"dimension.sideways": "1"}}, ConfigError, "sideways"),
        ({"metrics": ["perplexity"]}, UsageError, "perplexity"),
        ({"bench": None, "budgets": ["size <= 1MB"]}, UsageError, "measuring is switched off"),
        ({"quantizers": ["edgeq"], "targets": ["onnxruntime", "coreml"]}, UsageError, "None of the targets"),
    ],
)
def test_a_wrong_request_is_an_error_of_the_whole(
    work: Workspace, tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        compared(work, tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_read_is_an_error_of_the_whole(work: Workspace, tmp_path: Path) -> None:
    (work.folder / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError):
        edgeq.compile_many(work.folder / "broken.onnx", targets=BOTH, scheme="fp32", output=tmp_path / "out")


def test_what_is_there_needs_force(work: Workspace, tmp_path: Path) -> None:
    options: dict[str, Any] = {"scheme": "fp32", "calibration": None, "bench": None, "evaluation": None}
    compared(work, tmp_path, **options)
    with pytest.raises(OutputExistsError, match="out-onnxruntime is there"):
        compared(work, tmp_path, **options)
    compared(work, tmp_path, force=True, **options)
    for target in BOTH:
        for file in (tmp_path / f"out-{target}").iterdir():
            file.unlink()
    with pytest.raises(OutputExistsError, match=r"out-comparison\.html is there"):
        compared(work, tmp_path, **options)


def test_both_quantizers_of_a_target_are_two_artefacts(work: Workspace, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    found = compared(work, tmp_path, targets=["openvino"], quantizers=["edgeq", "nncf"])
    assert [(row.candidate.name, row.quantizer) for row in found.rows] == [
        ("openvino (edgeq)", "edgeq"),
        ("openvino (nncf)", "nncf"),
    ]
    assert all(row.passed for row in found.rows), [row.error for row in found.rows]
    assert (tmp_path / "out-edgeq-openvino").is_dir()
    assert (tmp_path / "out-nncf-openvino").is_dir()


def test_the_baseline_is_remembered_only_for_accuracy(measured: Comparison) -> None:
    """Times of remembered answers would be those of a dictionary."""
    base = measured.rows[0].result
    assert base is not None
    assert base.measurements["latency_p50"].baseline is not None
    assert base.measurements["latency_p50"].baseline > 5e-6
    assert np.isfinite(base.measurements["sqnr"].value)
