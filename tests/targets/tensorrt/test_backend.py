"""Engines built in another process: what is written, what is left when it fails, and who builds what."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.errors import TargetError
from edgeq.progress import Advance, SilentProgress
from edgeq.targets.tensorrt.backend import build, process
from edgeq.targets.tensorrt.backend.build import build_engine, build_many
from edgeq.targets.tensorrt.backend.request import BuildReport
from tests.support.cli import hear_interrupts
from tests.support.qdq_models import QDQ, conv
from tests.support.tensorrt import needs_rtx, request, sizes, stored

pytestmark = needs_rtx
if sys.platform != "win32":
    import resource


def int8_conv(path: Path) -> Path:
    """A float16 convolution, quantized: INT8 on all but SM75."""
    g = QDQ(np.float16)
    return stored(g.model(conv(g, g.qdq(g.input("x", 1, 8, 8, 8), "a"), g.weight("w", (8, 8, 3, 3)))), path)


def dynamic(path: Path) -> Path:
    g = QDQ()
    return stored(g.model(g.op("MatMul", [g.input("x", "n", 64), g.floats("w", 64, 64)], "mm")), path)


def long_chain(path: Path) -> Path:
    """Takes seconds to compile."""
    g = QDQ()
    x = g.input("x", 4, 8)
    for index in range(1000):
        x = g.op("Relu", [x], f"r{index}")
    return stored(g.model(x), path)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Name → outcome, all of one process; ``folder`` is where the engines are."""
    folder = tmp_path_factory.mktemp("engines")
    model, free = int8_conv(folder / "conv.onnx"), dynamic(folder / "free.onnx")
    large = int8_conv(folder / "large.onnx")
    with (folder / "large.onnx.data").open("wb") as file:
        file.truncate(65 << 20)
    profile = {"x": sizes((1, 64), (4, 64), (16, 64))}
    fixed = {"x": sizes((32, 64), (32, 64), (32, 64))}
    requests = {
        "one": request(model, 86, engine=folder / "one.engine"),
        "two": request(model, 86, 120, engine=folder / "two.engine"),
        "turing": request(model, 75),
        "mixed": request(model, 75, 86),
        "refused": request(free, 86),
        "dynamic": request(free, 86, profiles=(profile,)),
        "profiles": request(free, 86, profiles=(profile, fixed)),
        "wrong_profile": request(free, 86, profiles=({"x": sizes((1, 64), (1, 64), (8, 65))},)),
        "unordered": request(free, 86, profiles=({"x": sizes((8, 64), (4, 64), (2, 64))},)),
        "unnamed": request(free, 86, profiles=({"y": sizes((1, 64), (1, 64), (8, 64))},)),
        "small_workspace": request(free, 86, profiles=(profile,), workspace_mb=1),
        "options": request(
            free, 86, profiles=(profile,), workspace_mb=512, optimization_level=1, weight_streaming=True
        ),
        "streamed": request(large, 86, engine=folder / "streamed.engine"),
        "no_folder": request(model, 86, engine=folder / "absent" / "x.engine"),
        "cache": request(model, 86, timing_cache=folder / "times.cache"),
        "last": request(model, 86),
    }
    return {"folder": folder, **dict(zip(requests, build_many(list(requests.values())), strict=True))}


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_engine_and_its_table_are_made(reports: dict[str, Any]) -> None:
    report = reports["one"]
    assert report.engine_bytes == (reports["folder"] / "one.engine").stat().st_size > 1000
    assert report.backend == "tensorrt-rtx"
    assert re.match(r"\d+\.\d+", report.version)
    assert 0 < report.seconds < 60
    assert 100 < report.peak_mb < 1000
    assert "Datatype: Int8" in report.tables[86]
    assert "[ONNX Layer: conv]" in report.tables[86]


def test_nothing_but_what_was_asked_for_is_written(reports: dict[str, Any]) -> None:
    models = ["conv.onnx", "free.onnx", "large.onnx", "large.onnx.data"]
    engines = ["one.engine", "streamed.engine", "two.engine"]
    assert files(reports["folder"]) == sorted([*models, *engines, "times.cache"])


def test_engine_for_two_gpus_is_one_compilation(reports: dict[str, Any]) -> None:
    """Its table holds for both: it is that of the older one alone."""
    report = reports["two"]
    assert set(report.tables) == {86, 120}
    assert len(set(report.tables.values())) == 1
    made_up = re.compile(r"__mye\d+")
    assert made_up.sub("", report.tables[120]) == made_up.sub("", reports["one"].tables[86])
    assert report.engine_bytes < 1.1 * reports["one"].engine_bytes
    assert not [message for message in report.messages if "SM75" in message.text]


def test_sm75_among_others_is_warned_of_as_it_decides_for_all(reports: dict[str, Any]) -> None:
    assert reports["mixed"].tables[86].count("Int8") == reports["turing"].tables[75].count("Int8")
    assert reports["mixed"].tables[86].count("Int8") < reports["one"].tables[86].count("Int8")
    assert [message.text for message in reports["mixed"].messages if "as SM75 needs it" in message.text]
    assert not [message for message in reports["turing"].messages if "as SM75" in message.text]


def test_profiles_are_built(reports: dict[str, Any]) -> None:
    table = reports["dynamic"].tables[86]
    assert "MinShape: [1,64], OptShape: [4,64], MaxShape: [16,64]" in table
    assert "[profile 1]" not in table
    assert "[profile 1]" in reports["profiles"].tables[86]


@pytest.mark.parametrize(
    ("name", "what", "fix"),
    [
        ("refused", "dynamic dimensions", "--dimension"),
        ("wrong_profile", r"axis 1 of the input 'x' is 64 .* asks for 64 to 65", "dynamic dimensions alone"),
        ("unordered", "sizes of the input 'x' are not in the order", "SMALLEST"),
        ("unnamed", "does not say the sizes of the input 'x'", "--dimension"),
        ("small_workspace", "no kernel works in so little memory", "workspace-mb"),
        ("no_folder", "cannot be written: No such file or directory", "another folder"),
    ],
)
def test_refusals(name: str, what: str, fix: str, reports: dict[str, Any]) -> None:
    error = reports[name]
    assert isinstance(error, TargetError)
    assert error.fix is not None
    assert fix in error.fix
    with pytest.raises(TargetError, match=what):
        raise error


def test_options_are_taken(reports: dict[str, Any]) -> None:
    assert isinstance(reports["options"], BuildReport)


def test_engine_written_while_it_is_built_is_the_same(reports: dict[str, Any]) -> None:
    folder = reports["folder"]
    assert reports["streamed"].engine_bytes == (folder / "streamed.engine").stat().st_size
    assert reports["streamed"].engine_bytes == reports["one"].engine_bytes


def test_timing_cache_is_written(reports: dict[str, Any]) -> None:
    """TensorRT for RTX has the calls, though it times nothing."""
    assert isinstance(reports["cache"], BuildReport)
    assert (reports["folder"] / "times.cache").stat().st_size > 0


def test_one_process_builds_again_after_refusals(reports: dict[str, Any]) -> None:
    made_up = re.compile(r"__mye\d+")
    assert made_up.sub("", reports["last"].tables[86]) == made_up.sub("", reports["one"].tables[86])


class Recorder(SilentProgress):
    """Progress as it was told; ``hook`` is called when a task begins."""

    def __init__(self, hook: Callable[[str], None] = lambda _task: None) -> None:
        self.tasks: list[tuple[str, int | None]] = []
        self.steps: list[int] = []
        self._hook = hook

    @contextmanager
    def task(self, description: str, total: int | None = None) -> Iterator[Advance]:
        self.tasks.append((description, total))
        self.steps.append(0)
        self._hook(description)
        yield self._advance

    def _advance(self, steps: int) -> None:
        self.steps[-1] += steps


def test_progress_is_shown(tmp_path: Path) -> None:
    progress = Recorder()
    build_engine(request(int8_conv(tmp_path / "m.onnx"), 86, 89), progress=progress)
    assert progress.tasks[0] == ("TensorRT reads the model", None)
    description, total = progress.tasks[1]
    assert description == "TensorRT builds for SM86, SM89"
    assert total is not None
    assert progress.steps[0] == 0 < progress.steps[1] <= total


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The process numbers of the workers that were started."""
    started: list[int] = []
    real = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
        child = real(*arguments, **options)
        started.append(child.pid)
        return child

    monkeypatch.setattr(process.subprocess, "Popen", start)
    return started


@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGSEGV, "was ended by SIGSEGV"), (signal.SIGKILL, "was ended by SIGKILL .*out of memory")],
)
def test_crash_is_an_error_and_leaves_the_old_engine(
    tmp_path: Path, workers: list[int], number: signal.Signals, said: str
) -> None:
    engine = tmp_path / "m.engine"
    engine.write_text("old")
    model = long_chain(tmp_path / "m.onnx")
    progress = Recorder(lambda task: os.kill(workers[-1], number) if "builds" in task else None)
    with pytest.raises(TargetError, match=rf"m\.onnx {said}.*the last thing that it said: \w+"):
        build_engine(request(model, 86, engine=engine), progress=progress)
    assert engine.read_text() == "old"
    assert files(tmp_path) == ["m.engine", "m.onnx"]


def test_build_that_takes_too_long_is_ended(tmp_path: Path, workers: list[int]) -> None:
    model = long_chain(tmp_path / "m.onnx")
    begin = time.monotonic()
    with pytest.raises(TargetError, match=r"took more than 0\.5 s and was ended"):
        build_engine(request(model, 86, engine=tmp_path / "m.engine"), timeout=0.5)
    assert time.monotonic() - begin < 20
    assert files(tmp_path) == ["m.onnx"]
    assert not alive(workers[-1])


def test_crash_costs_only_the_request_that_crashed(
    tmp_path: Path, workers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def crash_second(task: str) -> None:
        begun.append(task)
        if "builds" in task and begun.count(task) == 2:
            os.kill(workers[-1], signal.SIGABRT)

    monkeypatch.setattr(build, "SilentProgress", lambda: Recorder(crash_second))
    good, slow = int8_conv(tmp_path / "good.onnx"), long_chain(tmp_path / "slow.onnx")
    outcomes = build_many([request(path, 86) for path in (good, slow, good)])
    assert [type(outcome) for outcome in outcomes] == [BuildReport, TargetError, BuildReport]
    assert "slow.onnx was ended by SIGABRT" in str(outcomes[1])
    assert len(workers) == 2


def test_no_builds_start_no_process(workers: list[int]) -> None:
    assert build_many([]) == []
    assert workers == []


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_backend_that_cannot_be_imported_costs_only_its_own_requests(tmp_path: Path) -> None:
    """A process has one compiler: each backend gets its own."""
    asked = request(int8_conv(tmp_path / "m.onnx"), 86)
    outcomes = build_many([asked, asked.model_copy(update={"backend": "tensorrt"}), asked], timeout=60)
    assert [type(outcome) for outcome in outcomes] == [BuildReport, TargetError, BuildReport]
    assert "No module named 'tensorrt'" in str(outcomes[1])


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_full_disk_is_an_error(tmp_path: Path) -> None:
    model = int8_conv(tmp_path / "m.onnx")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(TargetError, match="cannot be written: File too large"):
            build_engine(request(model, 86, engine=tmp_path / "m.engine"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path) == ["m.onnx"]


_CONFIGURED = """
import json
import tensorrt_rtx as trt
from pathlib import Path
from edgeq.targets.tensorrt.backend.configure import configure
from edgeq.targets.tensorrt.backend.log import Heard
from edgeq.targets.tensorrt.backend.request import BuildRequest

def found(**more):
    asked = BuildRequest(backend="tensorrt-rtx", model=Path("m"), engine=None, sm=(86, 120), **more)
    config = configure(trt, trt.Builder(trt.Logger()), asked, asked.sm, Heard())
    return {
        "tf32": config.get_flag(trt.BuilderFlag.TF32),
        "streaming": config.get_flag(trt.BuilderFlag.WEIGHT_STREAMING),
        "detailed": config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED,
        "level": config.builder_optimization_level,
        "workspace": config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE),
        "gpus": [config.get_compute_capability(i).name for i in range(config.num_compute_capabilities)],
    }

usual = found()
asked = found(weight_streaming=True, optimization_level=1, workspace_mb=64)
print(json.dumps([usual, asked]))
"""


def test_the_builder_is_told_all_that_was_asked() -> None:
    """Of a flag that was forgotten neither the engine nor its table tells."""
    run = subprocess.run(
        [sys.executable, "-c", _CONFIGURED], capture_output=True, text=True, check=True, timeout=60
    )
    usual, asked = json.loads(run.stdout.splitlines()[-1])
    both = {"tf32": False, "detailed": True, "gpus": ["SM86", "SM120"]}
    assert both.items() <= usual.items()
    assert asked == {**both, "streaming": True, "level": 1, "workspace": 64 << 20}
    assert not usual["streaming"]
    assert usual["level"] != 1
    assert usual["workspace"] != 64 << 20


_PARENT = """
import sys
from pathlib import Path
from edgeq.targets.tensorrt.backend import build, process
from edgeq.targets.tensorrt.backend.build import build_engine
from edgeq.targets.tensorrt.backend.request import BuildRequest
from edgeq.progress import SilentProgress
start = process.subprocess.Popen
def popen(*arguments, **options):
    child = start(*arguments, **options)
    print(child.pid, flush=True)
    return child
process.subprocess.Popen = popen
class Told(SilentProgress):
    def task(self, description, total=None):
        print(description, flush=True)
        return super().task(description, total)
folder = Path(sys.argv[1])
build_engine(
    BuildRequest(backend="tensorrt-rtx", model=folder / "m.onnx", engine=folder / "m.engine", sm=(86,)),
    progress=Told(),
)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_end_of_the_parent_ends_the_worker(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C, and an end that the parent cannot react to."""
    long_chain(tmp_path / "m.onnx")
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_interrupts,
    )
    with parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        while "builds" not in parent.stdout.readline():
            pass
        os.kill(parent.pid, number)
        parent.communicate(timeout=30)
    assert parent.returncode != 0
    deadline = time.monotonic() + 20
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(worker)
    assert files(tmp_path) == ["m.onnx"]


def alive(number: int) -> bool:
    """Whether the process still runs (a dead one that nobody waited for does not count)."""
    status = Path(f"/proc/{number}/status")
    return status.is_file() and "State:\tZ" not in status.read_text()
