from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeq.benchmarks.feeding import latency_feeds
from edgeq.benchmarks.latency import Timing, latency_measurements, time_in_turns
from edgeq.benchmarks.options import BenchOptions
from edgeq.benchmarks.subject import Subject
from edgeq.calibration.data import open_data
from edgeq.calibration.types import Array, Arrays, TensorSpec
from edgeq.errors import UsageError
from edgeq.progress import SilentProgress
from tests.support.bench_models import linear, one_hot

OPTIONS = BenchOptions(
    warmup_seconds=0, min_seconds=0, min_iterations=24, max_seconds=5, max_iterations=240, block_seconds=1e-9
)
SILENT = SilentProgress()


class Noting:
    """A runner that notes the order of calls, around a real one."""

    def __init__(self, name: str, path: Path, log: list[tuple[str, float]]) -> None:
        self.name, self.log = name, log
        self._runner = Subject("onnxruntime", path, threads=1).open()

    @property
    def inputs(self) -> list[TensorSpec]:
        return self._runner.inputs

    @property
    def outputs(self) -> list[TensorSpec]:
        return self._runner.outputs

    def run(self, inputs: Arrays) -> dict[str, Array]:
        self.log.append((self.name, float(inputs["x"][0, 0])))
        assert not gc.isenabled()
        return self._runner.run(inputs)

    def close(self) -> None:
        self._runner.close()


def test_models_take_turns_with_the_same_inputs(tmp_path: Path) -> None:
    path = linear(tmp_path / "model.onnx")
    log: list[tuple[str, float]] = []
    runners = [Noting(name, path, log) for name in "AB"]
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    feeds = latency_feeds(runners, open_data({"x": x}, runners[0].inputs), OPTIONS)
    first, second = time_in_turns(runners, feeds, OPTIONS, SILENT)
    assert first.shape == second.shape == (24, 1)
    assert (first > 0).all()
    # The last 24 turns: one settling inference and one timed one each, in the order AB BA AB …
    turns = log[-24 * 4 :]
    assert [name for name, _ in turns[:8]] == list("AABBBBAA")
    by_model = {name: [value for n, value in turns if n == name] for name in "AB"}
    assert by_model["A"] == by_model["B"]
    assert set(by_model["A"]) == {0.0, 4.0, 8.0}
    assert gc.isenabled()


def test_measures_percentiles_and_speedup(tmp_path: Path) -> None:
    path = linear(tmp_path / "model.onnx")
    ours, theirs = (Subject("onnxruntime", path, threads=1).open() for _ in range(2))
    feeds = latency_feeds([ours, theirs], None, OPTIONS)
    timing = Timing(*time_in_turns([ours, theirs], feeds, OPTIONS, SILENT))
    found = {m.metric: m for m in latency_measurements(timing, feeds, threads=1, seed=OPTIONS.seed)}
    assert set(found) == {
        "latency_p50", "latency_p90", "latency_p95", "latency_p99", "latency_mean", "speedup",
    }  # fmt: skip
    p50, p99, speedup = found["latency_p50"], found["latency_p99"], found["speedup"]
    assert 0 < p50.value <= found["latency_p90"].value <= found["latency_p95"].value <= p99.value
    assert p50.baseline is not None
    assert speedup.value == pytest.approx(p50.baseline / p50.value)
    assert speedup.interval is not None
    assert speedup.interval[0] <= speedup.value <= speedup.interval[1]
    assert p50.detail["inputs"] == "random values of the declared shapes"
    assert p50.detail["iterations"] == 24
    histogram = p50.detail["histogram"]
    assert len(histogram["edges"]) == len(histogram["artefact"]) + 1 == len(histogram["baseline"]) + 1
    assert p99.detail["note"] == "24 inferences are few for latency_p99: it is the slowest"


def test_runs_alone_without_a_baseline(tmp_path: Path) -> None:
    runner = Subject("onnxruntime", linear(tmp_path / "model.onnx"), threads=1).open()
    feeds = latency_feeds([runner], None, OPTIONS)
    (times,) = time_in_turns([runner], feeds, OPTIONS, SILENT)
    found = latency_measurements(Timing(times, None), feeds, threads=None, seed=OPTIONS.seed)
    assert "speedup" not in {m.metric for m in found}
    assert all(m.baseline is None for m in found)
    assert found[0].detail["threads"] >= 1


def test_caps_end_the_timing(tmp_path: Path) -> None:
    runner = Subject("onnxruntime", linear(tmp_path / "model.onnx"), threads=1).open()
    feeds = latency_feeds([runner], None, OPTIONS)
    capped = replace(OPTIONS, min_iterations=10**9, max_iterations=50)
    assert time_in_turns([runner], feeds, capped, SILENT)[0].size == 50
    brief = replace(OPTIONS, min_iterations=10**9, max_iterations=10**9, max_seconds=1e-9)
    assert time_in_turns([runner], feeds, brief, SILENT)[0].shape[0] == 1


def test_fixed_batches_are_filled(tmp_path: Path) -> None:
    runner = Subject("onnxruntime", linear(tmp_path / "model.onnx", batch=8), threads=1).open()
    feeds = latency_feeds([runner], open_data({"x": one_hot([0, 1, 2])}, runner.inputs), OPTIONS)
    assert [feed["x"].shape for feed in feeds.inputs] == [(8, 4)]
    assert feeds.batch == 8
    assert feeds.origin == "1 real input of the evaluation data"


def test_different_fixed_batches_are_refused(tmp_path: Path) -> None:
    runners = [
        Subject("onnxruntime", linear(tmp_path / f"{n}.onnx", batch=n), threads=1).open() for n in (1, 8)
    ]
    with pytest.raises(UsageError, match=r"different fixed batches: \[1, 8\]"):
        latency_feeds(runners, None, OPTIONS)
