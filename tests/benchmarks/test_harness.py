from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeq.benchmarks.budgets import parse_budgets
from edgeq.benchmarks.harness import BenchOptions, Subject, measure
from edgeq.benchmarks.metric_info import DEVICE, RESOURCES
from edgeq.benchmarks.parts import part_of
from edgeq.benchmarks.size import measure_size
from edgeq.benchmarks.verdicts import judge
from edgeq.calibration.data import open_data
from edgeq.calibration.types import DataSource
from edgeq.errors import ModelError, UsageError
from tests.support.bench_models import linear, one_hot, text_input

LABELS = [0, 1, 2, 0]
FAST = BenchOptions(
    warmup_seconds=0, min_seconds=0, min_iterations=12, max_iterations=240, max_seconds=5,
    block_seconds=1e-9, processes=1, process_runs=1,
)  # fmt: skip


def subject(path: Path) -> Subject:
    return Subject("onnxruntime", path, threads=1)


def source(model: Path) -> DataSource:
    runner = subject(model).open()
    return open_data({"x": one_hot(LABELS), "label": np.array(LABELS)}, runner.inputs)


def test_measures_everything(tmp_path: Path) -> None:
    ours, theirs = linear(tmp_path / "ours.onnx"), linear(tmp_path / "fp32.onnx")
    found = measure(subject(ours), subject(theirs), source=source(ours), options=FAST)
    measured = {name for name in RESOURCES if part_of(name) not in ("placement", "generation")} - DEVICE
    assert measured <= set(found)
    assert {"top1", "sqnr"} <= set(found)
    assert not found.failures
    assert not found.notes
    assert found["top1"].value == found["top1"].baseline == 1.0
    assert found["latency_p50"].detail["inputs"] == "4 real inputs of the evaluation data"
    assert found["size"].value == ours.stat().st_size


def test_artefact_folder_is_run_by_its_target(tmp_path: Path) -> None:
    folder = tmp_path / "artefact"
    folder.mkdir()
    model = linear(folder / "model.onnx")
    (folder / "report.html").write_text("not shipped")
    found = measure(
        Subject("onnxruntime", folder, ("model.onnx",), 1),
        None,
        source=None,
        options=replace(FAST, parts=("size", "load")),
    )
    assert found["size"].value == model.stat().st_size
    assert found["load_time"].value > 0


def test_what_is_missing_has_its_reason(tmp_path: Path) -> None:
    model = linear(tmp_path / "model.onnx")
    budgets = parse_budgets(["top1 >= 99%", "peak_memory <= 1GB", "speedup >= 1x", "size <= 1MB"])
    found = measure(
        subject(model),
        None,
        source=None,
        budgets=budgets,
        options=replace(FAST, parts=("size", "latency", "accuracy")),
    )
    assert found.notes == [
        "Latency and memory are measured on random values of the declared shapes: "
        "no evaluation data was given."
    ]
    sentences = [verdict.sentence for verdict in judge(budgets, found)]
    assert sentences[:3] == [
        "top1 was not measured, so top1 >= 99% cannot be kept: no evaluation data was given.",
        "peak_memory was not measured, so peak_memory <= 1GB cannot be kept: "
        "measuring memory was switched off.",
        "speedup was not measured, so speedup >= 1x cannot be kept: "
        "there is no FP32 baseline to compare with.",
    ]


def test_budgets_add_to_the_default_metrics(tmp_path: Path) -> None:
    model = linear(tmp_path / "model.onnx")
    only_accuracy = replace(FAST, parts=("accuracy",))
    budgets = parse_budgets(["f1_macro >= 99%", "size <= 1MB"])
    data = source(model)
    found = measure(subject(model), subject(model), source=data, budgets=budgets, options=only_accuracy)
    assert {"top1", "sqnr", "f1_macro"} <= set(found)
    found = measure(
        subject(model),
        subject(model),
        source=data,
        metrics=["cosine"],
        budgets=budgets,
        options=only_accuracy,
    )
    assert set(found) == {"cosine", "f1_macro"}


def test_inputs_that_cannot_be_made_up_are_a_reason_not_an_end(tmp_path: Path) -> None:
    model = text_input(tmp_path / "model.onnx")
    found = measure(subject(model), None, source=None, options=FAST)
    assert set(found) == {"size"}
    assert found.failures["latency_p50"].startswith(
        "without evaluation data the model would have to run on random inputs: "
    )
    assert "peak_memory" in found.failures


def test_wrong_metric_is_refused(tmp_path: Path) -> None:
    model = linear(tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="perplexity"):
        measure(subject(model), None, source=source(model), metrics=["perplexity"], options=FAST)


def test_different_threads_are_refused(tmp_path: Path) -> None:
    model = linear(tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="The artefact has 1 threads and the baseline 2"):
        measure(subject(model), Subject("onnxruntime", model, (), 2), source=None, options=FAST)


def test_size_counts_external_data(tmp_path: Path) -> None:
    model = onnx.load(linear(tmp_path / "plain.onnx", np.ones((4, 4096), np.float32)))
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="model.data", size_threshold=0)
    found = measure_size(subject(path), subject(tmp_path / "plain.onnx"))
    data = tmp_path / "model.data"
    assert found.value == path.stat().st_size + data.stat().st_size
    assert found.baseline == (tmp_path / "plain.onnx").stat().st_size
    data.unlink()
    with pytest.raises(ModelError, match=r"model\.data is missing"):
        measure_size(subject(path), None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parts": ("speed",)}, "Unknown part 'speed'"),
        ({"processes": 0}, "The option processes is 0. It must be more than 0."),
        ({"min_seconds": -1}, "The option min_seconds is -1. It must be 0 or more."),
        ({"samples": 0}, "The option samples is 0. It must be more than 0."),
    ],
)
def test_options_are_checked(change: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        replace(BenchOptions(), **change)  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_runners_that_are_not_there_are_refused(tmp_path: Path) -> None:
    for target, words in (
        ("nowhere", "Unknown target 'nowhere'"),
        ("nowhere:runner", "The runner 'nowhere:runner' cannot be imported"),
    ):
        with pytest.raises(UsageError, match=words):
            Subject(target, tmp_path).open()
    with pytest.raises(UsageError, match=r"Target 'other' cannot run model\.onnx"):
        Subject("other", tmp_path / "model.onnx").open()
