"""Several artefacts beside one baseline: the same numbers as alone, and nobody's error is another's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeq.benchmarks.harness import BenchOptions, Subject, measure, measure_together
from edgeq.benchmarks.remembered import Remembered
from edgeq.calibration.data import open_data
from edgeq.calibration.types import Array, Arrays, DataSource, TensorSpec
from edgeq.errors import TargetError, UsageError
from tests.support.bench_models import IDENTITY, linear, one_hot, text_input

LABELS = [0, 1, 2, 0]
FAST = BenchOptions(
    warmup_seconds=0, min_seconds=0, min_iterations=24, max_iterations=48, max_seconds=5,
    block_seconds=1e-9, processes=1, process_runs=1,
)  # fmt: skip
QUALITY = replace(FAST, parts=("size", "accuracy"))


def subject(path: Path, target: str = "onnxruntime") -> Subject:
    return Subject(target, path, threads=1)


def source(model: Path) -> DataSource:
    return open_data({"x": one_hot(LABELS), "label": np.array(LABELS)}, subject(model).open().inputs)


class Counting:
    """A runner that counts its runs."""

    def __init__(self, path: Path) -> None:
        self.runs = 0
        self._runner = subject(path).open()

    @property
    def inputs(self) -> list[TensorSpec]:
        return self._runner.inputs

    @property
    def outputs(self) -> list[TensorSpec]:
        return self._runner.outputs

    def run(self, inputs: Arrays) -> dict[str, Array]:
        self.runs += 1
        return self._runner.run(inputs)

    def close(self) -> None:
        self._runner.close()


def test_accuracy_of_each_is_what_it_is_alone(tmp_path: Path) -> None:
    right = linear(tmp_path / "right.onnx")
    wrong = linear(tmp_path / "wrong.onnx", np.roll(IDENTITY, 1, axis=1))
    data = source(right)
    together = measure_together(
        [subject(wrong), subject(right)], subject(right), source=data, options=[QUALITY, QUALITY]
    )
    for path, found in zip((wrong, right), together, strict=True):
        alone = measure(subject(path), subject(right), source=data, options=QUALITY)
        assert found.error is None
        assert found.measurements.to_json() == alone.to_json()
        assert found.times is None


def test_the_error_of_one_is_not_that_of_the_others(tmp_path: Path) -> None:
    good, broken = linear(tmp_path / "good.onnx"), tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    wide = linear(tmp_path / "wide.onnx", batch=8)
    narrow = linear(tmp_path / "narrow.onnx", batch=1)
    paths = [broken, narrow, good, tmp_path / "defect"]
    subjects = [*map(subject, paths[:3]), subject(paths[3], "tests.support.bench_runners:defect")]
    options = [replace(FAST, parts=("latency", "load"))] * 4
    found = measure_together(subjects, subject(narrow), source=source(good), options=options)
    errors = [type(one.error) for one in found]
    assert errors == [TargetError, type(None), type(None), RuntimeError]
    assert found[2].times is not None
    assert found[1].times is not None
    assert found[2].times.shape == found[1].times.shape
    assert {"latency_p50", "speedup", "load_time"} <= set(found[2].measurements)
    # Two different fixed batches cannot be fed beside each other.
    found = measure_together(
        [subject(wide), subject(good)], subject(narrow), source=source(good), options=options[:2]
    )
    assert isinstance(found[0].error, UsageError)
    assert found[1].error is None
    assert "latency_p50" in found[1].measurements


def test_parts_may_differ(tmp_path: Path) -> None:
    model = linear(tmp_path / "model.onnx")
    options = [replace(FAST, parts=("size",)), replace(FAST, parts=("latency",))]
    first, second = measure_together([subject(model)] * 2, subject(model), source=None, options=options)
    assert list(first.measurements) == ["size"]
    assert first.times is None
    assert "latency_p50" in second.measurements
    assert "size" not in second.measurements


def test_without_a_baseline_and_with_inputs_that_cannot_be_made_up(tmp_path: Path) -> None:
    model, text = linear(tmp_path / "model.onnx"), text_input(tmp_path / "text.onnx")
    options = [replace(FAST, parts=("latency",))] * 2
    timed, untimed = measure_together([subject(model), subject(text)], None, source=None, options=options)
    assert timed.measurements["latency_p50"].baseline is None
    assert untimed.error is None
    assert "random inputs" in untimed.measurements.failures["latency_p50"]


def test_a_baseline_that_fails_is_everybodys_error(tmp_path: Path) -> None:
    model, broken = linear(tmp_path / "model.onnx"), tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(TargetError):
        measure_together([subject(model)] * 2, subject(broken), source=None, options=[FAST, FAST])


def test_answers_are_remembered_by_content_within_a_limit(tmp_path: Path) -> None:
    inner = Counting(linear(tmp_path / "model.onnx"))
    runner = Remembered(inner, limit=2 * 3 * 4)
    samples = [{"x": one_hot([label])} for label in (0, 1, 2)]
    first = [runner.run(sample) for sample in samples]
    again = [runner.run({"x": sample["x"].copy()}) for sample in samples]
    # Two answers of 3 float32 fit; the third is computed again.
    assert inner.runs == 4
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a["y"], b["y"])
    assert runner.run({"x": one_hot([0]).astype(np.float32) * 2})["y"][0, 0] == 2
    assert inner.runs == 5
