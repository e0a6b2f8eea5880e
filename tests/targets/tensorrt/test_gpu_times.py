from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
from rich.console import Console

from edgeq.benchmarks.budgets import parse_budgets
from edgeq.benchmarks.gate import Gate, Outcome
from edgeq.benchmarks.harness import BenchOptions, Subject, measure
from edgeq.benchmarks.intervals import Estimate
from edgeq.benchmarks.measurement import Measurement, Measurements
from edgeq.benchmarks.metric_info import DEVICE
from edgeq.benchmarks.verdicts import judge
from edgeq.calibration.types import Arrays
from edgeq.cli.tables import result_view
from edgeq.manifest import Manifest
from edgeq.progress import SilentProgress
from edgeq.report import render_report
from edgeq.result import CompileResult
from edgeq.targets.base import DeviceReport, NodeResult
from edgeq.targets.onnxruntime.runner import OnnxRuntimeRunner
from edgeq.targets.tensorrt.backend.request import BuildReport, InputShapes
from edgeq.targets.tensorrt.gpu import compare
from edgeq.targets.tensorrt.gpu.compare import build_float, float_model, memory_of
from edgeq.targets.tensorrt.gpu.runner import Timed
from edgeq.targets.tensorrt.gpu.timing import BLOCKS, Series, block_size, time_engines
from edgeq.targets.tensorrt.gpu.verdict import Times, findings, is_slower, measurements, suspects
from edgeq.targets.tensorrt.layers.file import NodeEntry, write_layers
from edgeq.targets.tensorrt.options import TensorRTOptions
from edgeq.targets.tensorrt.settings import Settings
from tests.support.bench_models import linear
from tests.support.manifests import manifest, measured
from tests.support.tensorrt import needs_rtx

FEEDS: list[Arrays] = [{"x": np.zeros(1)}, {"x": np.ones(1)}]
OPTIONS = BenchOptions(warmup_seconds=0, min_seconds=0, min_iterations=60, max_iterations=1000)
FINDING = "int8-static is slower than FP16 on this GPU: 2 ms against 1 ms"


class Clock:
    """An engine that always takes the same time."""

    def __init__(self, seconds: float, log: list[str] | None = None, name: str = "") -> None:
        self.seconds, self.log, self.name = seconds, log, name

    def timed(self, inputs: Arrays) -> Timed:
        if self.log is not None:
            self.log.append(self.name)
        return Timed(self.seconds, self.seconds + 0.001)


def series(milliseconds: float, *, spread: float = 0.01, seed: int = 0) -> Series:
    noise = 1 + spread * np.random.default_rng(seed).standard_normal((BLOCKS, 20))
    device = milliseconds / 1000 * noise
    return Series(device, device + 0.0005)


def times(ours: float, fp16: float, fp32: float, **spread: float) -> Times:
    return Times(
        series(ours, **spread),
        {"fp16": series(fp16, seed=1, **spread), "fp32": series(fp32, seed=2, **spread)},
    )


def node(name: str, op_type: str, planned: str, actual: str) -> NodeEntry:
    return NodeEntry(name=name, op_type=op_type, planned=planned, actual=actual, layer="kernel", reason="")


# Timing


def test_engines_take_turns_and_each_block_starts_with_a_run_that_is_not_counted() -> None:
    log: list[str] = []
    timers = {name: Clock(0.001, log, name) for name in ("a", "b")}
    found = time_engines(timers, FEEDS, OPTIONS, SilentProgress())
    assert found["a"].device.shape == (BLOCKS, 5)
    warm = 2 * 4
    turns = [log[warm + 6 * i] for i in range(2 * BLOCKS)]
    assert turns[:6] == ["a", "b", "b", "a", "a", "b"]
    assert log[warm : warm + 6] == ["a"] * 6
    assert len(log) == warm + 2 * BLOCKS * 6
    assert np.allclose(found["b"].device, 0.001)
    assert np.allclose(found["b"].total, 0.002)


@pytest.mark.parametrize(
    ("slowest", "wanted"), [(0.001, 167), (0.0001, 834), (10.0, 1), (1e-7, 834)], ids=str
)
def test_blocks_keep_the_options(slowest: float, wanted: int) -> None:
    assert block_size(slowest, BenchOptions(max_iterations=10_000)) == wanted


# Measurements


def test_percentiles_are_those_of_the_gpu_beside_the_fp32_engine() -> None:
    made = times(1.0, 1.5, 3.0)
    found = {m.metric: m for m in measurements(made, seed=0)}
    assert set(found) == DEVICE - {"device_memory"}
    p90 = found["device_p90"]
    assert p90.value == pytest.approx(np.percentile(made.ours.device, 90))
    assert p90.baseline == pytest.approx(np.percentile(made.floats["fp32"].device, 90))
    assert p90.detail["with_transfers"] == pytest.approx(np.percentile(made.ours.total, 90))
    assert p90.detail["fp16"] == pytest.approx(np.percentile(made.floats["fp16"].device, 90))
    assert p90.interval is not None
    assert p90.interval[0] <= p90.value <= p90.interval[1]
    assert found["speedup_fp16"].value == pytest.approx(1.5, rel=0.02)
    assert found["speedup_fp32"].value == pytest.approx(3.0, rel=0.02)
    assert "few" not in p90.detail.get("note", "")


def test_few_inferences_are_said_to_be_few() -> None:
    few = Series(np.full((2, 10), 0.001), np.full((2, 10), 0.001))
    found = {m.metric: m for m in measurements(Times(few, {}), seed=0)}
    assert set(found) == {"device_p50", "device_p90", "device_p99"}
    assert found["device_p99"].detail["note"] == "20 inferences are few for device_p99: it is the slowest"
    assert "note" not in found["device_p90"].detail
    assert found["device_p50"].baseline is None


def test_memory_stands_beside_the_fp32_engine() -> None:
    found = memory_of({"artefact": 10, "fp16": 20, "fp32": 40})
    assert (found.value, found.baseline, found.unit) == (10.0, 40.0, "bytes")
    assert found.detail == {"fp16": 20, "fp32": 40}
    assert memory_of({"artefact": 10}).baseline is None


def test_budgets_can_ask_for_them() -> None:
    found = Measurements()
    found.add(*measurements(times(2.0, 1.0, 3.0), seed=0))
    slow, fast = judge(parse_budgets(["speedup_fp16 >= 1x", "device_p99 <= 5ms"]), found)
    assert not slow.passed
    assert fast.passed


# Findings


def test_int8_that_is_slower_than_fp16_is_a_finding_with_its_suspects() -> None:
    nodes = [
        node("conv", "Conv", "int8", "int8"),
        node("up", "Conv", "int8", "fp16"),
        node("head", "Gemm", "fp16", "fp16"),
        node("act", "Relu", "fp16", "fp16"),
    ]
    (found,) = findings(times(2.0, 1.0, 3.0), "int8-static", nodes, seed=0)
    assert found.startswith("int8-static is slower than FP16 on this GPU: ")
    assert "a speedup of 0.50x (95 % interval 0.50x to 0.50x)" in found
    assert found.endswith("Suspects, planned quantized, but left in float by the compiler: Conv 'up' (fp16).")


def test_slower_than_both_is_two_findings() -> None:
    found = findings(times(4.0, 1.0, 3.0), "int4-weight", [], seed=0)
    assert [text.split(" on this")[0] for text in found] == [
        "int4-weight is slower than FP16",
        "int4-weight is slower than FP32",
    ]
    assert all("look at what lies between them: layers.json" in text for text in found)


def test_faster_or_equal_within_the_interval_is_no_finding() -> None:
    assert findings(times(1.0, 1.2, 3.0), "int8-static", [], seed=0) == []
    assert findings(times(1.0, 1.0, 3.0, spread=0.3), "int8-static", [], seed=0) == []


def test_float_schemes_have_no_findings() -> None:
    assert findings(times(4.0, 1.0, 3.0), "fp32", [], seed=0) == []


def test_without_enough_blocks_the_ratio_alone_decides() -> None:
    assert is_slower(Estimate(0.9, None))
    assert not is_slower(Estimate(1.1, None))
    assert not is_slower(Estimate(0.99, (0.97, 1.01)))


def test_suspects_are_few_and_those_that_missed_their_plan_come_first() -> None:
    planned = [node(f"c{i}", "Conv", "fp16", "fp16") for i in range(7)]
    assert suspects(planned) == (
        "Suspects, in float by the plan: Conv 'c0' (fp16), Conv 'c1' (fp16), Conv 'c2' (fp16), "
        "Conv 'c3' (fp16), Conv 'c4' (fp16) and 2 more"
    )
    assert suspects([*planned, node("m", "MatMul", "int8", "fp32")]).endswith("compiler: MatMul 'm' (fp32)")


# Where people see them


def artefact(folder: Path) -> CompileResult:
    section = measured().model_copy(update={"findings": [FINDING]})
    described = manifest().model_copy(update={"measured": section})
    return CompileResult(folder, described, section.as_measurements(), [])


def test_a_finding_is_red_in_the_report(tmp_path: Path) -> None:
    page = render_report(artefact(tmp_path).manifest)
    assert f'<p class="bad">✗ {FINDING}</p>' in page
    assert page.index(FINDING) < page.index('class="tiles"')
    assert FINDING not in render_report(manifest())


def test_a_finding_is_red_in_the_terminal(tmp_path: Path) -> None:
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, color_system="standard", width=200, no_color=False)
    console.print(result_view(artefact(tmp_path)))
    assert f"\x1b[1;31m✗ {FINDING}\x1b[0m" in screen.getvalue()


def test_a_finding_is_in_the_job_summary(tmp_path: Path) -> None:
    result = artefact(tmp_path)
    gate = Gate((Outcome("model", "tensorrt", measurements=result.measurements),))
    assert f"❌ {FINDING}" in gate.to_markdown()


def test_findings_survive_the_manifest(tmp_path: Path) -> None:
    result = artefact(tmp_path)
    result.manifest.write(tmp_path)
    again = Manifest.read(tmp_path).measured
    assert again is not None
    assert again.as_measurements().findings == [FINDING]
    assert Measurements.from_json(result.measurements.to_json()).findings == [FINDING]


# The harness


class OnADevice(OnnxRuntimeRunner):
    """A runner that has a device of its own."""

    def measure_device(
        self, original: Path | None, feeds: Any, options: BenchOptions, progress: Any
    ) -> DeviceReport:
        assert original is not None
        assert original.name == "fp32.onnx"
        value = Measurement("device_p50", float(len(feeds)), unit="s", higher_is_better=False)
        return DeviceReport((value,), (FINDING,), ("a note of the device",))


FAST = BenchOptions(
    parts=("latency",), warmup_seconds=0, min_seconds=0, min_iterations=12, max_seconds=5, block_seconds=1e-9
)  # fmt: skip


def test_the_harness_takes_what_a_device_says(tmp_path: Path) -> None:
    ours, theirs = linear(tmp_path / "ours.onnx"), linear(tmp_path / "fp32.onnx")
    found = measure(
        Subject(f"{__name__}:OnADevice", ours, threads=1),
        Subject("onnxruntime", theirs, threads=1),
        source=None,
        options=replace(FAST),
    )
    assert found["device_p50"].value >= 1
    assert found.findings == [FINDING]
    assert "a note of the device" in found.notes


def test_a_budget_on_a_device_that_is_not_there_is_missed_with_the_reason(tmp_path: Path) -> None:
    model = linear(tmp_path / "model.onnx")
    budgets = parse_budgets(["speedup_fp16 >= 1x"])
    found = measure(
        Subject("onnxruntime", model, threads=1), None, source=None, budgets=budgets, options=FAST
    )
    (verdict,) = judge(budgets, found)
    assert not verdict.passed
    assert "target onnxruntime has no device with such a clock here" in verdict.sentence


# The engines that are compared with


@needs_rtx
def test_float_engines_are_built_like_the_artefact(tmp_path: Path) -> None:
    original = linear(tmp_path / "fp32.onnx")
    profile = {"x": InputShapes(min=(1, 4), opt=(2, 4), max=(8, 4))}
    like = Settings(
        backend="tensorrt-rtx", version="", scheme="int8-static", sm=(86,), profiles=(profile,),
        options=TensorRTOptions(precision="fp32"),
    )  # fmt: skip
    for scheme in ("fp16", "fp32"):
        folder = build_float(float_model(original), scheme, like, tmp_path / scheme, SilentProgress())
        assert (folder / "model.engine").stat().st_size > 1000
        assert Settings.read(folder) == like.model_copy(update={"scheme": scheme})
        weights = onnx.load(folder / "model.onnx").graph.initializer
        assert {w.data_type for w in weights} == {
            onnx.TensorProto.FLOAT16 if scheme == "fp16" else onnx.TensorProto.FLOAT
        }


class ClockedRunner:
    """Stands for :class:`EngineRunner`, which needs a GPU: the time depends on the artefact's scheme."""

    SECONDS: Mapping[str, float] = {"int8-static": 0.003, "fp16": 0.001, "fp32": 0.002}
    BYTES: Mapping[str, int] = {"int8-static": 100, "fp16": 200, "fp32": 400}
    opened: ClassVar[list[str]] = []

    def __init__(self, folder: Path) -> None:
        assert (folder / "model.engine").is_file()
        self.scheme = Settings.read(folder).scheme
        self.opened.append(self.scheme)

    def __enter__(self) -> ClockedRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.opened.remove(self.scheme)

    def run(self, inputs: Arrays) -> dict[str, Any]:
        return {}

    def timed(self, inputs: Arrays) -> Timed:
        return Timed(self.SECONDS[self.scheme], self.SECONDS[self.scheme] + 0.001)


class ClockedCuda:
    """What the open engines take."""

    def used(self) -> int:
        return sum(ClockedRunner.BYTES[scheme] for scheme in ClockedRunner.opened)

    def close(self) -> None:
        pass


@needs_rtx
def test_the_three_engines_are_built_opened_timed_and_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "EngineRunner", ClockedRunner)
    monkeypatch.setattr(compare, "open_cuda", ClockedCuda)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "baseline").mkdir()
    original = linear(tmp_path / "baseline" / "model.onnx")
    like = Settings(
        backend="tensorrt-rtx", version="", scheme="int8-static", sm=(86,), options=TensorRTOptions(),
        profiles=({"x": InputShapes(min=(1, 4), opt=(2, 4), max=(8, 4))},),
    )  # fmt: skip
    folder = build_float(float_model(original), "fp32", like, tmp_path / "artefact", SilentProgress())
    like.write(folder)
    report = BuildReport(
        backend="tensorrt-rtx", version="", engine_bytes=1, seconds=1.0, peak_mb=1.0, tables={}
    )
    write_layers(folder, report, (), (NodeResult("m", "MatMul", "int8", "fp16", "gemm", ""),), ())
    made = compare.compare(folder, original.parent, FEEDS, OPTIONS, SilentProgress())
    found = {m.metric: m for m in made.measurements}
    assert set(found) == DEVICE
    assert found["speedup_fp16"].value == pytest.approx(1 / 3)
    assert found["speedup_fp32"].value == pytest.approx(2 / 3)
    assert (found["device_memory"].value, found["device_memory"].baseline) == (100.0, 400.0)
    assert found["device_p99"].baseline == pytest.approx(0.002)
    assert [text.split(" on this")[0] for text in made.findings] == [
        "int8-static is slower than FP16",
        "int8-static is slower than FP32",
    ]
    assert "MatMul 'm' (fp16)" in made.findings[0]
    assert ClockedRunner.opened == []
    assert list((tmp_path / "temporary").iterdir()) == []


def test_without_the_original_the_artefact_is_timed_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "EngineRunner", ClockedRunner)
    monkeypatch.setattr(compare, "open_cuda", ClockedCuda)
    (tmp_path / "model.engine").write_bytes(b"engine")
    settings = Settings(
        backend="tensorrt-rtx", version="", scheme="int8-static", sm=(86,), profiles=(),
        options=TensorRTOptions(),
    )  # fmt: skip
    settings.write(tmp_path)
    report = BuildReport(
        backend="tensorrt-rtx", version="", engine_bytes=1, seconds=1.0, peak_mb=1.0, tables={}
    )
    write_layers(tmp_path, report, (), (), ())
    made = compare.compare(tmp_path, None, FEEDS, OPTIONS, SilentProgress())
    assert {m.metric for m in made.measurements} == DEVICE - {"speedup_fp16", "speedup_fp32"}
    assert all(m.baseline is None for m in made.measurements)
    assert made.findings == ()
