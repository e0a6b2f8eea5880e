from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.benchmarks.metric_info import DEVICE
from edgeq.benchmarks.options import BenchOptions
from edgeq.calibration.types import TensorSpec
from edgeq.errors import DataError, MissingExtraError, TargetError
from edgeq.progress import SilentProgress
from edgeq.targets.tensorrt.architectures import ARCHITECTURES
from edgeq.targets.tensorrt.backend.packages import importable
from edgeq.targets.tensorrt.backend.request import BackendName, BuildReport, InputShapes
from edgeq.targets.tensorrt.gpu import memory
from edgeq.targets.tensorrt.gpu.built_for import check_built_for
from edgeq.targets.tensorrt.gpu.compare import build_float, float_model
from edgeq.targets.tensorrt.gpu.device import Device, compute_capability, device, present, require
from edgeq.targets.tensorrt.gpu.engine import describe_ports
from edgeq.targets.tensorrt.gpu.execution import Execution
from edgeq.targets.tensorrt.gpu.profile_choice import choose_profile
from edgeq.targets.tensorrt.gpu.runner import EngineRunner
from edgeq.targets.tensorrt.gpu.runtime_cache import cache_path, keep, restore
from edgeq.targets.tensorrt.layers.file import write_layers
from edgeq.targets.tensorrt.options import TensorRTOptions
from edgeq.targets.tensorrt.settings import Settings
from tests.support.bench_models import IDENTITY, linear
from tests.support.tensorrt import needs_rtx
from tests.support.tensorrt_gpu import Context, HostCuda, Trt, ports

no_gpu = pytest.mark.skipif(present(), reason="this machine has an NVIDIA GPU")
needs_gpu = pytest.mark.skipif(not present(), reason="this machine has no NVIDIA GPU")
SMALL = {"x": InputShapes(min=(1, 4), opt=(2, 4), max=(8, 4))}
LARGE = {"x": InputShapes(min=(1, 4), opt=(64, 4), max=(64, 4))}
RTX_3090 = Device("NVIDIA GeForce RTX 3090", 86, 24576.0)


def settings(**fields: Any) -> Settings:
    values = {"backend": "tensorrt-rtx", "version": "1.7.1", "scheme": "int8-static", "sm": (86, 120)}
    return Settings(**{**values, "profiles": (), "options": TensorRTOptions(), **fields})


def execution(
    cuda: HostCuda, *, capture: bool = False, found: bool = False, profiles: Any = (SMALL, LARGE)
) -> tuple[Execution, Context]:
    context = Context(cuda, profiles)
    return Execution(Trt, context, ports(found=found), cuda, profiles, capture=capture), context


def run(made: Execution, cuda: HostCuda, array: Any) -> dict[str, Any]:
    made.load({"x": np.asarray(array, np.float32)})
    made.upload()
    made.compute()
    made.download()
    cuda.synchronize()
    return made.results()


# Without a GPU


@no_gpu
def test_a_machine_without_a_gpu_is_seen_and_refused() -> None:
    assert device() is None
    assert compute_capability() is None
    with pytest.raises(TargetError) as refused:
        require()
    assert str(refused.value) == (
        "An engine runs on an NVIDIA GPU, and this machine has none (or no NVIDIA driver that works). "
        "Run this on a machine with a GPU; in a container, start it with: docker run --gpus all."
    )


@no_gpu
def test_the_runner_refuses_before_it_reads_anything(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="An engine runs on an NVIDIA GPU, and this machine has none"):
        EngineRunner(tmp_path / "no such folder")


def test_without_torch_and_cuda_python_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_torch_has_cuda", lambda: False)
    monkeypatch.setattr(memory, "_has_cuda_python", lambda: False)
    with pytest.raises(MissingExtraError) as refused:
        memory.open_cuda()
    assert str(refused.value) == (
        "Running an engine needs an optional dependency that is not installed. "
        "Install it with: pip install 'edgeq[tensorrt]'"
    )


@pytest.mark.skipif(
    not memory._has_cuda_python(), reason="cuda-python (the extra 'tensorrt') is not installed"
)
@no_gpu
def test_cuda_python_says_why_it_does_not_start() -> None:
    with pytest.raises(TargetError, match=r"CUDA's cudaStreamCreateWithFlags fails: cudaError\w+"):
        memory.open_cuda()


# What an engine was built for


def test_an_engine_for_this_gpu_is_accepted() -> None:
    check_built_for(settings(), RTX_3090)
    check_built_for(settings(backend="tensorrt", sm=()), Device("NVIDIA H100", 90, 81559.0))


def test_an_engine_for_other_gpus_is_refused_by_name() -> None:
    with pytest.raises(TargetError) as refused:
        check_built_for(settings(sm=(89, 120)), RTX_3090)
    assert str(refused.value) == (
        "The engine was built for the compute capabilities 8.9 (Ada), 12.0 (Blackwell), and this GPU (NVIDIA "
        "GeForce RTX 3090) has 8.6. Compile for it: --sm 86."
    )
    with pytest.raises(TargetError, match="TensorRT for RTX does not build for this GPU"):
        check_built_for(settings(), Device("NVIDIA H100", 90, 81559.0))


# Profiles


def test_the_nearest_profile_is_chosen() -> None:
    assert choose_profile((), {"x": (3, 4)}) == 0
    assert choose_profile((SMALL, LARGE), {"x": (2, 4)}) == 0
    assert choose_profile((LARGE, SMALL), {"x": (2, 4)}) == 1
    assert choose_profile((SMALL, LARGE), {"x": (40, 4)}) == 1


def test_shapes_outside_of_all_profiles_are_refused() -> None:
    for shape in ((65, 4), (2, 5), (2, 4, 1), (0, 4)):
        with pytest.raises(DataError, match=re.escape(f"has the shape {list(shape)}")):
            choose_profile((SMALL, LARGE), {"x": shape})
    with pytest.raises(DataError) as refused:
        choose_profile((SMALL,), {"x": (9, 4)})
    assert str(refused.value) == (
        "The input 'x' has the shape [9, 4], and the engine was built for [1, 4] to [8, 4]. Give inputs "
        "within, or compile with a wider range: --dimension NAME=1..64@8."
    )


# The order of an inference, on a stand-in that keeps the real one's rules


def test_shapes_change_between_runs() -> None:
    cuda = HostCuda()
    made, context = execution(cuda)
    for rows in (2, 2, 5, 1, 40, 3):
        array = np.arange(rows * 4).reshape(rows, 4) - rows
        assert np.array_equal(run(made, cuda, array)["y"], 2 * array)
        assert context.active_optimization_profile == (1 if rows == 40 else 0)
    made.close()
    cuda.close()


def test_inputs_that_are_not_contiguous_arrive_in_order() -> None:
    cuda = HostCuda()
    made, _ = execution(cuda)
    array = np.arange(12, dtype=np.float32).reshape(4, 3).T
    assert np.array_equal(run(made, cuda, array)["y"], 2 * array)


def test_results_do_not_change_with_the_next_run() -> None:
    cuda = HostCuda()
    made, _ = execution(cuda)
    first = run(made, cuda, np.ones((2, 4)))["y"]
    run(made, cuda, np.zeros((2, 4)))
    assert np.array_equal(first, np.full((2, 4), 2))


def test_repeated_shapes_are_captured_and_replayed() -> None:
    cuda = HostCuda()
    made, context = execution(cuda, capture=True)
    for i in range(4):
        assert np.array_equal(run(made, cuda, np.full((2, 4), i))["y"], np.full((2, 4), 2 * i))
    # Once as it is, once for the capture, and no more.
    assert context.enqueued == 2
    assert cuda.replayed == 3
    assert np.array_equal(run(made, cuda, np.ones((3, 4)))["y"], np.full((3, 4), 2))
    assert not made.captured
    assert np.array_equal(run(made, cuda, np.full((3, 4), 5))["y"], np.full((3, 4), 10))
    assert made.captured
    made.close()
    cuda.close()


def test_what_cannot_be_captured_runs_without() -> None:
    cuda = HostCuda()
    cuda.capturable = False
    made, context = execution(cuda, capture=True)
    for i in range(3):
        assert np.array_equal(run(made, cuda, np.full((2, 4), i))["y"], np.full((2, 4), 2 * i))
    assert context.enqueued == 3
    assert not made.captured


def test_outputs_whose_size_the_data_decide() -> None:
    cuda = HostCuda()
    made, context = execution(cuda, capture=True, found=True)
    for array in (np.eye(4), np.ones((8, 4)), -np.ones((2, 4)), np.eye(4)[:3]):
        found = run(made, cuda, array)["found"]
        assert found.dtype == np.int64
        assert np.array_equal(found, np.argwhere(array > 0))
    assert not made.captured
    assert context.enqueued == 4
    made.close()
    cuda.close()


def test_a_refused_shape_does_not_spoil_the_next_run() -> None:
    cuda = HostCuda()
    made, _ = execution(cuda)
    run(made, cuda, np.ones((2, 4)))
    with pytest.raises(DataError):
        made.load({"x": np.ones((65, 4), np.float32)})
    assert np.array_equal(run(made, cuda, np.ones((2, 4)))["y"], np.full((2, 4), 2))


def test_an_engine_that_does_not_run_is_an_error() -> None:
    cuda = HostCuda()
    made, context = execution(cuda)
    made.load({"x": np.ones((2, 4), np.float32)})
    context._addresses.clear()
    with pytest.raises(TargetError, match="TensorRT fails to run the engine"):
        made.compute()


# The stand-in against the bindings, which can be imported without a GPU

_DESCRIBE = """
import json, tensorrt_rtx as trt
own = {}
for name in ("IExecutionContext", "ICudaEngine", "IRuntimeConfig", "IRuntimeCache", "Runtime"):
    kind = getattr(trt, name)
    own[name] = {n: getattr(kind, n).__doc__ or "" for n in dir(kind) if not n.startswith("__")}
own["enums"] = {name: list(getattr(trt, name).__members__) for name in (
    "TensorIOMode", "TensorLocation", "CudaGraphStrategy", "DataType",
    "DynamicShapesKernelSpecializationStrategy")}
own["severity"] = list(trt.ILogger.Severity.__members__)
class Output(trt.IOutputAllocator):
    def __init__(self):
        trt.IOutputAllocator.__init__(self)
Output()
print(json.dumps(own))
"""


@pytest.fixture(scope="module")
def bindings() -> Any:
    found = subprocess.run([sys.executable, "-c", _DESCRIBE], capture_output=True, check=True, text=True)
    return json.loads(found.stdout)


@needs_rtx
def test_the_stand_in_has_the_real_methods_and_parameters(bindings: Any) -> None:
    real = bindings["IExecutionContext"]
    for name, method in inspect.getmembers(Context, inspect.isfunction):
        if name.startswith("_"):
            continue
        wanted = list(inspect.signature(method).parameters)[1:]
        documented = re.search(rf"{name}\(self: [\w.]+(.*?)\) ->", real[name])
        assert documented is not None, name
        assert re.findall(r", (\w+):", documented[1]) == wanted, name
    assert "active_optimization_profile" in real


@needs_rtx
def test_every_other_call_is_one_of_the_bindings(bindings: Any) -> None:
    engine = {
        "num_io_tensors", "get_tensor_name", "get_tensor_dtype", "get_tensor_shape", "get_tensor_mode",
        "get_tensor_location", "create_execution_context", "create_runtime_config",
        "weight_streaming_budget_v2", "get_weight_streaming_automatic_budget",
    }  # fmt: skip
    assert engine <= set(bindings["ICudaEngine"])
    assert re.search(
        r"runtime_config: \S*IRuntimeConfig", bindings["ICudaEngine"]["create_execution_context"]
    )
    config = {
        "create_runtime_cache", "set_runtime_cache", "cuda_graph_strategy",
        "dynamic_shapes_kernel_specialization_strategy",
    }  # fmt: skip
    assert config <= set(bindings["IRuntimeConfig"])
    assert {"serialize", "deserialize", "reset"} <= set(bindings["IRuntimeCache"])
    assert "deserialize_cuda_engine" in bindings["Runtime"]
    enums = bindings["enums"]
    assert "INPUT" in enums["TensorIOMode"]
    assert "HOST" in enums["TensorLocation"]
    assert "WHOLE_GRAPH_CAPTURE" in enums["CudaGraphStrategy"]
    assert "EAGER" in enums["DynamicShapesKernelSpecializationStrategy"]
    assert {"FLOAT", "HALF", "INT8", "UINT8", "INT32", "INT64", "BOOL"} <= set(enums["DataType"])
    assert {"ERROR", "INTERNAL_ERROR"} <= set(bindings["severity"])


def test_the_calls_of_torch_are_there() -> None:
    torch = pytest.importorskip("torch")
    options = inspect.signature(torch.cuda.graph.__init__).parameters
    assert {"cuda_graph", "stream", "capture_error_mode"} <= set(options)
    assert hasattr(torch.cuda.CUDAGraph, "replay")
    assert "enable_timing" in inspect.signature(torch.cuda.Event.__new__).parameters
    assert {"record", "elapsed_time"} <= set(dir(torch.cuda.Event))
    assert callable(torch.cuda.mem_get_info)
    assert callable(torch.cuda.empty_cache)


_LOAD = """
import sys
from pathlib import Path
from edgeq.errors import TargetError
from edgeq.targets.tensorrt.gpu.engine import Engine
from edgeq.targets.tensorrt.settings import Settings
folder = Path(sys.argv[1])
try:
    Engine(folder, Settings.read(folder), 86, cuda_graph=True)
except TargetError as error:
    print(error)
"""


@needs_rtx
@no_gpu
def test_the_real_loader_says_in_one_sentence_what_the_runtime_refuses(tmp_path: Path) -> None:
    made = settings(sm=(86,), profiles=({"x": InputShapes(min=(1, 4), opt=(2, 4), max=(8, 4))},))
    folder = build_float(
        float_model(linear(tmp_path / "fp32.onnx")), "fp32", made, tmp_path / "made", SilentProgress()
    )
    ended = subprocess.run(
        [sys.executable, "-c", _LOAD, str(folder)], capture_output=True, check=True, text=True
    )
    (line,) = ended.stdout.splitlines()
    assert line.startswith("The engine, built by tensorrt-rtx 1.7.1, cannot be loaded by tensorrt_rtx ")
    assert "cudaError" in line
    assert line.endswith(". Compile it again on this machine.")
    assert ended.stderr == ""


# Ports


class _Named:
    def __init__(self, name: str) -> None:
        self.name = name


class _Modes:
    class TensorIOMode:
        INPUT = "in"

    class TensorLocation:
        HOST = "host"


class _Described:
    """An ``ICudaEngine`` with three tensors."""

    num_io_tensors = 3
    _tensors = (
        ("x", "FLOAT", (-1, 3), "in", "gpu"),
        ("sizes", "INT64", (2,), "in", "host"),
        ("y", "BOOL", (), "out", "gpu"),
    )

    def get_tensor_name(self, index: int) -> str:
        return self._tensors[index][0]

    def _of(self, name: str) -> Any:
        return next(tensor for tensor in self._tensors if tensor[0] == name)

    def get_tensor_dtype(self, name: str) -> _Named:
        return _Named(self._of(name)[1])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._of(name)[2])

    def get_tensor_mode(self, name: str) -> str:
        return str(self._of(name)[3])

    def get_tensor_location(self, name: str) -> str:
        return str(self._of(name)[4])


def test_ports_are_described_as_numpy_sees_them() -> None:
    x, sizes, y = describe_ports(_Described(), _Modes)
    assert x.spec == TensorSpec("x", np.dtype(np.float32), (None, 3))
    assert (x.is_input, x.on_host) == (True, False)
    assert sizes.spec == TensorSpec("sizes", np.dtype(np.int64), (2,))
    assert sizes.on_host
    assert y.spec == TensorSpec("y", np.dtype(np.bool_), ())
    assert not y.is_input


# The cache of compiled kernels


class _RuntimeCache:
    """``IRuntimeCache``: takes what begins with ``fits``."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content

    def deserialize(self, blob: bytes) -> bool:
        self.content = blob
        return blob.startswith(b"fits")

    def reset(self) -> bool:
        self.content = b""
        return True


@pytest.fixture
def engine_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "artefact" / "model.engine"
    path.parent.mkdir()
    path.write_bytes(b"engine")
    return path


def test_kernels_are_kept_outside_of_the_artefact(engine_file: Path, tmp_path: Path) -> None:
    path = cache_path(engine_file, "1.7.1", 86)
    assert path.is_relative_to(tmp_path / "cache" / "edgeq")
    keep(_RuntimeCache(b"fits, compiled"), path)
    assert [file.name for file in engine_file.parent.iterdir()] == ["model.engine"]
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    again = _RuntimeCache()
    restore(again, path)
    assert again.content == b"fits, compiled"


def test_each_engine_version_and_gpu_has_its_own_kernels(engine_file: Path) -> None:
    paths = {cache_path(engine_file, "1.7.1", 86), cache_path(engine_file, "1.7.1", 89)}
    paths.add(cache_path(engine_file, "1.8.0", 86))
    engine_file.write_bytes(b"another engine")
    paths.add(cache_path(engine_file, "1.7.1", 86))
    assert len(paths) == 4


def test_kernels_that_do_not_fit_or_are_missing_are_made_anew(engine_file: Path) -> None:
    path = cache_path(engine_file, "1.7.1", 86)
    cache = _RuntimeCache()
    restore(cache, path)
    assert cache.content == b""
    keep(_RuntimeCache(b"of another GPU"), path)
    restore(cache, path)
    assert cache.content == b""


def test_a_cache_folder_that_cannot_be_written_is_no_error(engine_file: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    keep(_RuntimeCache(b"fits"), cache_path(engine_file, "1.7.1", 86))
    assert (tmp_path / "cache").is_file()


# With a GPU


@needs_gpu
def test_the_driver_describes_the_gpu() -> None:
    found = require()
    assert found.name
    assert found.sm >= 50
    assert found.memory_mb > 500


@needs_gpu
@pytest.mark.skipif(
    find_spec("torch") is None and not memory._has_cuda_python(), reason="no torch, no cuda-python"
)
def test_memory_goes_to_the_gpu_and_back() -> None:
    cuda = memory.open_cuda()
    buffer = cuda.allocate(1024)
    assert buffer.address % 256 == 0
    buffer.host[:] = np.arange(1024) % 251
    cuda.upload(buffer, 1024)
    cuda.synchronize()
    buffer.host[:] = 0
    cuda.download(buffer, 1024)
    cuda.synchronize()
    assert np.array_equal(buffer.host, np.arange(1024) % 251)
    cuda.free(buffer)
    cuda.close()


def runs_here(backend: BackendName) -> bool:
    found = device()
    return found is not None and importable(backend) and (backend == "tensorrt" or found.sm in ARCHITECTURES)


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_an_engine_runs_is_timed_and_compared(backend: BackendName, tmp_path: Path) -> None:
    if not runs_here(backend):
        pytest.skip(f"no NVIDIA GPU that {backend} builds for, or {backend} is not installed")
    original = linear(tmp_path / "fp32.onnx")
    profile = {"x": InputShapes(min=(1, 4), opt=(2, 4), max=(8, 4))}
    sm = () if backend == "tensorrt" else (require().sm,)
    like = settings(backend=backend, version="", scheme="fp32", sm=sm, profiles=(profile,))
    folder = build_float(float_model(original), "fp32", like, tmp_path / "artefact", SilentProgress())
    report = BuildReport(backend=backend, version="", engine_bytes=1, seconds=1, peak_mb=1, tables={})
    write_layers(folder, report, (), (), ())
    with EngineRunner(folder) as runner:
        for rows in (2, 2, 2, 5, 1, 5):
            x = np.random.default_rng(rows).standard_normal((rows, 4)).astype(np.float32)
            assert np.allclose(runner.run({"x": x})["y"], x @ IDENTITY, atol=1e-2)
        timed = runner.timed({"x": x})
        assert 0 < timed.device <= timed.total < 1
        with pytest.raises(DataError, match="was built for"):
            runner.run({"x": np.zeros((9, 4), np.float32)})
        found = runner.measure_device(original, [{"x": x}], BenchOptions.quick(), SilentProgress())
    assert {m.metric for m in found.measurements} == DEVICE - {"speedup_fp32"}
    assert found.findings == ()
    with pytest.raises(TargetError, match="The runner is closed"):
        runner.run({"x": x})
    runner.close()
