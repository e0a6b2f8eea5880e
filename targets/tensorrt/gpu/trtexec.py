"""NVIDIA's own tools beside ours: command lines of ``trtexec`` 10 and 11 and of ``tensorrt_rtx``, and runs.

Flags are those of trtexec's help (NVIDIA/TensorRT, samples/common/sampleOptions.cpp) and of the guides of
TensorRT 10, 11 and TensorRT for RTX. TensorRT 11 has removed ``--fp16 --bf16 --int8 --fp8 --int4 --best
--calib``: precision is in the ONNX model, so none of them is needed with 10 either.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from edgeq.benchmarks.units import format_value
from edgeq.calibration.types import Arrays
from edgeq.errors import TargetError
from edgeq.targets.tensorrt.backend.request import BuildRequest, Shape
from edgeq.targets.tensorrt.files import ENGINE
from edgeq.targets.tensorrt.gpu.profile_choice import choose_profile
from edgeq.targets.tensorrt.gpu.trtexec_times import ToolTimes, read_summary, read_times
from edgeq.targets.tensorrt.options import TensorRTOptions
from edgeq.targets.tensorrt.settings import Settings

Tool = Literal["trtexec 10", "trtexec 11", "tensorrt_rtx"]
# Where NVIDIA's container and its Debian package put the tools, which are not always on PATH.
_FOLDERS = ("/opt/tensorrt/bin", "/usr/src/tensorrt/bin")
_TIMEOUT = 600.0

# 10 must be told what 11 does by default: strong typing, CUDA graphs, waiting without sleeping.
_STRONG: Mapping[Tool, tuple[str, ...]] = {
    "trtexec 10": ("--stronglyTyped",),
    "trtexec 11": (),
    "tensorrt_rtx": (),
}
_GRAPH: Mapping[Tool, tuple[str, ...]] = {
    "trtexec 10": ("--useCudaGraph",),
    "trtexec 11": (),
    "tensorrt_rtx": (),
}
_NO_GRAPH: Mapping[Tool, tuple[str, ...]] = {
    "trtexec 10": (),
    "trtexec 11": ("--noCudaGraph",),
    "tensorrt_rtx": ("--rtxCudaGraphStrategy=disable",),
}
# 10 copies inputs and outputs unless told not to; the others only when told to.
_HOST: Mapping[Tool, tuple[str, ...]] = {
    "trtexec 10": ("--useSpinWait",),
    "trtexec 11": ("--includeDataTransfers",),
    "tensorrt_rtx": ("--includeDataTransfers", "--specializeStrategyDS=eager"),
}


def tool_of(backend: str, version: str) -> Tool:
    """The tool for an engine of a backend."""
    if backend == "tensorrt-rtx":
        return "tensorrt_rtx"
    return "trtexec 10" if version.startswith("10.") else "trtexec 11"


def build_command(request: BuildRequest, tool: Tool) -> list[str]:
    """The command line that builds what ``request`` asks for.

    Raises:
        TargetError: an input's name that the tool cannot be given.
    """
    command = [tool.split()[0], f"--onnx={request.model}", *_STRONG[tool]]
    if request.engine is not None:
        command.append(f"--saveEngine={request.engine}")
    for index, profile in enumerate(request.profiles):
        if len(request.profiles) > 1:
            command.append(f"--profile={index}")
        for which in ("min", "opt", "max"):
            shapes = {name: getattr(allowed, which) for name, allowed in profile.items()}
            command.append(f"--{which}Shapes={shape_spec(shapes)}")
    return [*command, *_build_options(request, tool), "--skipInference"]


def _build_options(request: BuildRequest, tool: Tool) -> list[str]:
    options = ["--profilingVerbosity=detailed"]
    if tool == "tensorrt_rtx" and request.sm:
        options.append(f"--computeCapabilities={','.join(map(str, request.sm))}")
    if request.optimization_level is not None:
        options.append(f"--builderOptimizationLevel={request.optimization_level}")
    if request.workspace_mb is not None:
        options.append(f"--memPoolSize=workspace:{request.workspace_mb}M")
    if request.timing_cache is not None and tool != "tensorrt_rtx":
        options.append(f"--timingCacheFile={request.timing_cache}")
    if request.weight_streaming:
        options.append("--allowWeightStreaming")
    return options


def time_command(
    engine: Path,
    tool: Tool,
    options: TensorRTOptions,
    shapes: Mapping[str, Shape],
    *,
    profile: int = 0,
    layers: bool = False,
) -> list[str]:
    """The command line that times an engine as edgeq does: copies included, with or without a CUDA graph.

    ``shapes`` are those of inputs with free dimensions. ``layers``: the time of every layer is printed too.

    Raises:
        TargetError: an input's name that the tool cannot be given.
    """
    command = [tool.split()[0], f"--loadEngine={engine}"]
    if shapes:
        command.append(f"--shapes={shape_spec(shapes)}")
    if profile:
        command.append(f"--useProfile={profile}")
    command += [*(_GRAPH if options.cuda_graph else _NO_GRAPH)[tool], *_HOST[tool]]
    if options.weight_streaming:
        command.append("--weightStreamingBudget=-1")
    if layers:
        command += ["--dumpProfile", "--dumpLayerInfo"]
    return command


def shape_spec(shapes: Mapping[str, Shape]) -> str:
    """``input:1x3x224x224,mask:1x128``.

    Raises:
        TargetError: a name with a comma, which separates inputs there.
    """
    return ",".join(
        f"{_name(name)}:{'x'.join(map(str, shape)) or 'scalar'}" for name, shape in shapes.items()
    )


def _name(name: str) -> str:
    if "," in name or "'" in name or "*" in name:
        raise TargetError(
            f"The input {name!r} cannot be given to trtexec: commas, quotes and stars mean something there.",
            fix="Rename the input, or time the engine with edgeq bench.",
        )
    return f"'{name}'" if ":" in name else name


def find_tool(tool: Tool) -> str | None:
    """The path of the tool's program, None when it is not installed."""
    program = tool.split()[0]
    return shutil.which(program) or shutil.which(program, path=":".join(_FOLDERS))


def run_tool(command: list[str], program: str, *, timeout: float = _TIMEOUT) -> ToolTimes:
    """Run a :func:`time_command` by the file ``program``, and read the times.

    ``trtexec`` exports those of every inference. The guide of ``tensorrt_rtx`` names no such flag: there the
    printed summary is read.

    Raises:
        TargetError: it fails, takes too long, or says no times.
    """
    if command[0] != "trtexec":
        return read_summary(_output(command, program, timeout))
    with TemporaryDirectory(prefix="edgeq-trtexec-") as folder:
        times = Path(folder) / "times.json"
        _output([*command, f"--exportTimes={times}"], program, timeout)
        return read_times(times)


def _output(command: list[str], program: str, timeout: float) -> str:
    try:
        ended = subprocess.run(
            [program, *command[1:]], capture_output=True, text=True, timeout=timeout, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TargetError(f"{command[0]} does not run: {error}.") from error
    if ended.returncode != 0:
        raise TargetError(f"{command[0]} fails: {_last_error(ended.stdout + ended.stderr)}")
    return ended.stdout


def trtexec_note(folder: Path, settings: Settings, feed: Arrays) -> str | None:
    """What NVIDIA's tool measures of the same engine, as a sentence; None where it is not installed."""
    tool = tool_of(settings.backend, settings.version)
    program = find_tool(tool)
    if program is None:
        return None
    shapes = {name: tuple(feed[name].shape) for profile in settings.profiles for name in profile}
    profile = choose_profile(settings.profiles, shapes)
    try:
        command = time_command(folder / ENGINE, tool, settings.options, shapes, profile=profile)
        found = run_tool(command, program)
    except TargetError as error:
        return f"{tool} was not compared: {error}"
    return f"{describe(found, tool)}: {shlex.join(command)}"


def describe(found: ToolTimes, tool: Tool) -> str:
    """``trtexec 10 on this engine: GPU p50 1.2 ms, p90 1.3 ms, p99 1.4 ms (1000 inferences)``."""
    parts = ", ".join(f"{name} {format_value(value, 's')}" for name, value in found.compute.items())
    many = "" if found.inferences is None else f" ({found.inferences} inferences)"
    return f"{tool} on this engine: GPU {parts}{many}"


def _last_error(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if "[E]" in line]
    return (lines[-1] if lines else "it says nothing").rstrip(".") + "."
