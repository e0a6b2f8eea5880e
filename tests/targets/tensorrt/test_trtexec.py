from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.errors import TargetError
from edgeq.targets.tensorrt.backend.request import BuildRequest, InputShapes
from edgeq.targets.tensorrt.gpu import trtexec
from edgeq.targets.tensorrt.gpu.trtexec import (
    Tool,
    build_command,
    describe,
    find_tool,
    run_tool,
    shape_spec,
    time_command,
    tool_of,
    trtexec_note,
)
from edgeq.targets.tensorrt.gpu.trtexec_times import read_summary, read_times
from edgeq.targets.tensorrt.options import TensorRTOptions
from edgeq.targets.tensorrt.settings import Settings

TOOLS: tuple[Tool, ...] = ("trtexec 10", "trtexec 11", "tensorrt_rtx")
# What TensorRT 11 has removed from trtexec, or calls a no-op.
REMOVED = ("--fp16", "--bf16", "--int8", "--fp8", "--int4", "--best", "--calib", "--noDataTransfers")
NO_OPS_OF_11 = (
    "--stronglyTyped",
    "--useCudaGraph",
    "--useSpinWait",
    "--noDataTransfers",
    "--separateProfileRun",
)
PROFILE = {
    "input": InputShapes(min=(1, 3, 32, 32), opt=(8, 3, 32, 32), max=(64, 3, 32, 32)),
    "mask": InputShapes(min=(1, 16), opt=(8, 16), max=(64, 128)),
}
MODEL, ENGINE = Path("model.onnx"), Path("model.engine")


def request(**fields: Any) -> BuildRequest:
    values = {"backend": "tensorrt", "model": MODEL, "engine": ENGINE, "sm": (), **fields}
    return BuildRequest(**values)


def full() -> BuildRequest:
    return request(
        sm=(86, 120), profiles=(PROFILE,), weight_streaming=True, optimization_level=5, workspace_mb=2048,
        timing_cache=Path("timing.cache"),
    )  # fmt: skip


# Command lines


def test_the_tool_is_that_of_the_engine() -> None:
    assert tool_of("tensorrt-rtx", "1.7.1.116") == "tensorrt_rtx"
    assert tool_of("tensorrt", "10.15.1.29") == "trtexec 10"
    assert tool_of("tensorrt", "11.2.1.2") == "trtexec 11"


BUILDS: dict[Tool, str] = {
    "trtexec 10": "trtexec --onnx=model.onnx --stronglyTyped --saveEngine=model.engine "
    "--minShapes=input:1x3x32x32,mask:1x16 --optShapes=input:8x3x32x32,mask:8x16 "
    "--maxShapes=input:64x3x32x32,mask:64x128 --profilingVerbosity=detailed --builderOptimizationLevel=5 "
    "--memPoolSize=workspace:2048M --timingCacheFile=timing.cache --allowWeightStreaming --skipInference",
    "trtexec 11": "trtexec --onnx=model.onnx --saveEngine=model.engine "
    "--minShapes=input:1x3x32x32,mask:1x16 --optShapes=input:8x3x32x32,mask:8x16 "
    "--maxShapes=input:64x3x32x32,mask:64x128 --profilingVerbosity=detailed --builderOptimizationLevel=5 "
    "--memPoolSize=workspace:2048M --timingCacheFile=timing.cache --allowWeightStreaming --skipInference",
    "tensorrt_rtx": "tensorrt_rtx --onnx=model.onnx --saveEngine=model.engine "
    "--minShapes=input:1x3x32x32,mask:1x16 --optShapes=input:8x3x32x32,mask:8x16 "
    "--maxShapes=input:64x3x32x32,mask:64x128 --profilingVerbosity=detailed --computeCapabilities=86,120 "
    "--builderOptimizationLevel=5 --memPoolSize=workspace:2048M --allowWeightStreaming --skipInference",
}


@pytest.mark.parametrize("tool", TOOLS)
def test_build_command(tool: Tool) -> None:
    assert " ".join(build_command(full(), tool)) == BUILDS[tool]


def test_several_profiles_are_numbered() -> None:
    line = " ".join(build_command(request(profiles=({"x": PROFILE["mask"]},) * 2), "trtexec 11"))
    assert (
        "--profile=0 --minShapes=x:1x16 --optShapes=x:8x16 --maxShapes=x:64x128 --profile=1 --minShapes"
        in line
    )


TIMES: dict[tuple[Tool, bool], str] = {
    ("trtexec 10", True): "trtexec --loadEngine=model.engine --shapes=input:2x3 --useCudaGraph --useSpinWait",
    ("trtexec 10", False): "trtexec --loadEngine=model.engine --shapes=input:2x3 --useSpinWait",
    ("trtexec 11", True): "trtexec --loadEngine=model.engine --shapes=input:2x3 --includeDataTransfers",
    ("trtexec 11", False): "trtexec --loadEngine=model.engine --shapes=input:2x3 --noCudaGraph "
    "--includeDataTransfers",
    (
        "tensorrt_rtx",
        True,
    ): "tensorrt_rtx --loadEngine=model.engine --shapes=input:2x3 --includeDataTransfers "
    "--specializeStrategyDS=eager",
    ("tensorrt_rtx", False): "tensorrt_rtx --loadEngine=model.engine --shapes=input:2x3 "
    "--rtxCudaGraphStrategy=disable --includeDataTransfers --specializeStrategyDS=eager",
}


@pytest.mark.parametrize(("tool", "graph"), TIMES)
def test_time_command(tool: Tool, graph: bool) -> None:
    options = TensorRTOptions(cuda_graph=graph)
    assert " ".join(time_command(ENGINE, tool, options, {"input": (2, 3)})) == TIMES[tool, graph]


def test_time_command_with_everything() -> None:
    options = TensorRTOptions(weight_streaming=True)
    line = time_command(ENGINE, "trtexec 10", options, {}, profile=1, layers=True)
    assert line[1:3] == ["--loadEngine=model.engine", "--useProfile=1"]
    assert {"--weightStreamingBudget=-1", "--dumpProfile", "--dumpLayerInfo"} <= set(line)
    assert not any(part.startswith("--shapes") for part in line)


@pytest.mark.parametrize("tool", TOOLS)
def test_what_11_has_removed_is_never_used(tool: Tool) -> None:
    lines = build_command(full(), tool) + time_command(
        ENGINE, tool, TensorRTOptions(), {"x": (1,)}, layers=True
    )
    flags = {part.partition("=")[0] for part in lines}
    assert not flags & set(REMOVED)
    if tool != "trtexec 10":
        assert not flags & set(NO_OPS_OF_11)


def test_names_of_inputs() -> None:
    assert shape_spec({"serving:x": (1, 2), "length": ()}) == "'serving:x':1x2,length:scalar"
    for name in ("a,b", "it's", "a*"):
        with pytest.raises(TargetError, match="cannot be given to trtexec"):
            shape_spec({name: (1,)})


# Output. The first sample is from a comment of October 2024 in NVIDIA/TensorRT's issue 4177; the second from
# the guide "Performance Benchmarking" of TensorRT for RTX.

TRTEXEC_10 = """\
[10/03/2024-10:47:59] [I] === Performance summary ===
[10/03/2024-10:47:59] [I] Throughput: 130.298 qps
[10/03/2024-10:47:59] [I] Latency: min = 5.38672 ms, max = 13.3664 ms, mean = 7.60628 ms, \
median = 7.16092 ms, percentile(90%) = 10.2996 ms, percentile(95%) = 10.8698 ms, percentile(99%) = 12.9675 ms
[10/03/2024-10:47:59] [I] Enqueue Time: min = 2.72876 ms, max = 15.0201 ms, mean = 7.63062 ms, \
median = 7.86694 ms, percentile(90%) = 10.1792 ms, percentile(95%) = 11.7217 ms, percentile(99%) = 14.1848 ms
[10/03/2024-10:47:59] [I] GPU Compute Time: min = 5.34595 ms, max = 13.3388 ms, mean = 7.58404 ms, \
median = 7.14139 ms, percentile(90%) = 10.2881 ms, percentile(95%) = 10.8175 ms, percentile(99%) = 12.9485 ms
[10/03/2024-10:47:59] [I] Total Host Walltime: 3.00082 s
[10/03/2024-10:47:59] [I] Total GPU Compute Time: 2.96536 s
"""  # fmt: skip
RTX = """\
[I] === Performance summary ===
[I] Throughput: 1133.1 qps
[I] Latency: min = 0.877441 ms, max = 0.886963 ms, mean = 0.881485 ms,
median = 0.881592 ms, percentile(90%) = 0.883606 ms,
percentile(95%) = 0.883789 ms, percentile(99%) = 0.885010 ms
[I] Enqueue Time: min = 0.004639 ms, max = 0.020630 ms, mean = 0.005356 ms,
median = 0.005249 ms, percentile(90%) = 0.005859 ms,
percentile(95%) = 0.006104 ms, percentile(99%) = 0.007324 ms
[I] GPU Compute Time: min = 0.877441 ms, max = 0.886963 ms,
mean = 0.881485 ms, median = 0.881592 ms,
percentile(90%) = 0.883606 ms, percentile(95%) = 0.883789 ms,
percentile(99%) = 0.885010 ms
"""


def test_the_summary_of_trtexec() -> None:
    found = read_summary(TRTEXEC_10)
    assert found.latency == pytest.approx({"p50": 0.00716092, "p90": 0.0102996, "p99": 0.0129675})
    assert found.compute == pytest.approx({"p50": 0.00714139, "p90": 0.0102881, "p99": 0.0129485})
    assert found.inferences is None
    counted = read_summary("[I] Timing trace has 393 queries over 3.0 s\n" + TRTEXEC_10)
    assert counted.inferences == 393


def test_the_summary_of_tensorrt_rtx() -> None:
    found = read_summary(RTX)
    assert found.compute == pytest.approx({"p50": 0.000881592, "p90": 0.000883606, "p99": 0.00088501})
    assert describe(found, "tensorrt_rtx") == (
        "tensorrt_rtx on this engine: GPU p50 881.6 us, p90 883.6 us, p99 885 us"
    )


def test_output_without_a_summary_is_an_error() -> None:
    for text in ("", "[E] Error[1]: something", "=== Performance summary ===\nThroughput: 1 qps"):
        with pytest.raises(TargetError, match="holds no performance summary"):
            read_summary(text)


def exported(count: int) -> str:
    """``--exportTimes`` as sampleReporting.cpp writes it."""
    entries = [
        {
            "startEnqMs": i, "endEnqMs": i + 0.1, "startH2dMs": i, "endH2dMs": i + 0.2,
            "startComputeMs": i + 0.2, "endComputeMs": i + 1.2, "startD2hMs": i + 1.2, "endD2hMs": i + 1.3,
            "h2dMs": 0.2,
            "computeMs": 1 + i / 100, "d2hMs": 0.1, "latencyMs": 1.3 + i / 100,
        }
        for i in range(count)
    ]  # fmt: skip
    return json.dumps(entries)


def test_exported_times(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    path.write_text(exported(101))
    found = read_times(path)
    assert found.inferences == 101
    assert found.compute == pytest.approx({"p50": 0.0015, "p90": 0.0019, "p99": 0.00199})
    assert found.latency["p50"] == pytest.approx(0.0018)


@pytest.mark.parametrize("text", ["", "[]", "{}", '[{"computeMs": 1}]', "[1]"])
def test_what_is_no_export_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "times.json"
    path.write_text(text)
    with pytest.raises(TargetError, match=r"times\.json"):
        read_times(path)


# Runs, of a program that behaves like the tool


def program(folder: Path, name: str, body: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


EXPORTING = """for argument; do
  case "$argument" in --exportTimes=*) cp "$(dirname "$0")/sample.json" "${argument#--exportTimes=}";; esac
done"""


def artefact(folder: Path, **fields: Any) -> Settings:
    values = {"backend": "tensorrt", "version": "10.15.1", "scheme": "int8-static", "sm": (), "profiles": ()}
    settings = Settings(**{**values, "options": TensorRTOptions(), **fields})
    settings.write(folder)
    return settings


def test_trtexec_is_found_run_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sample.json").write_text(exported(101))
    program(tmp_path, "trtexec", EXPORTING)
    monkeypatch.setattr(trtexec, "_FOLDERS", (str(tmp_path),))
    assert find_tool("trtexec 10") == str(tmp_path / "trtexec")
    settings = artefact(tmp_path, profiles=({"x": PROFILE["mask"]},))
    note = trtexec_note(tmp_path, settings, {"x": np.zeros((2, 16), np.float32)})
    assert note == (
        "trtexec 10 on this engine: GPU p50 1.5 ms, p90 1.9 ms, p99 1.99 ms (101 inferences): trtexec "
        f"--loadEngine={tmp_path / 'model.engine'} --shapes=x:2x16 --useCudaGraph --useSpinWait"
    )


def test_tensorrt_rtx_is_read_from_its_output(tmp_path: Path) -> None:
    (tmp_path / "said.txt").write_text(RTX)
    path = program(tmp_path, "tensorrt_rtx", 'cat "$(dirname "$0")/said.txt"')
    command = time_command(ENGINE, "tensorrt_rtx", TensorRTOptions(), {})
    assert run_tool(command, str(path)).compute["p50"] == pytest.approx(0.000881592)


def test_a_tool_that_fails_says_why_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "trtexec", 'echo "[11/21/2026-10:00:00] [E] Error deserializing engine"; exit 1')
    monkeypatch.setattr(trtexec, "_FOLDERS", (str(tmp_path),))
    note = trtexec_note(tmp_path, artefact(tmp_path), {})
    assert note == (
        "trtexec 10 was not compared: trtexec fails: [11/21/2026-10:00:00] [E] Error deserializing engine."
    )


def test_a_tool_that_hangs_is_ended(tmp_path: Path) -> None:
    path = program(tmp_path, "trtexec", "exec sleep 60")
    with pytest.raises(TargetError, match="trtexec does not run"):
        run_tool(["trtexec"], str(path), timeout=0.2)


def test_without_the_tool_there_is_no_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(trtexec, "_FOLDERS", ())
    assert trtexec_note(tmp_path, artefact(tmp_path), {}) is None
