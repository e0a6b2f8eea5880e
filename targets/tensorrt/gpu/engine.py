"""Loading an engine with the runtime that it was built for."""

from __future__ import annotations

import functools
from collections import deque
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import TensorSpec
from edgeq.errors import TargetError
from edgeq.targets.tensorrt.backend.packages import PACKAGES, importable
from edgeq.targets.tensorrt.backend.request import BackendName
from edgeq.targets.tensorrt.files import ENGINE
from edgeq.targets.tensorrt.gpu.runtime_cache import cache_path, keep, restore
from edgeq.targets.tensorrt.settings import Settings

# Types that inputs and outputs can have, by the names of tensorrt.DataType.
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
_KEPT_MESSAGES = 20


@dataclass(frozen=True)
class Port:
    """An input or output. Dimensions that are free are None; ``on_host``: TensorRT reads it on the CPU."""

    spec: TensorSpec
    is_input: bool
    on_host: bool


class Engine:
    """An engine with one execution context, in the memory of the GPU until :meth:`close`."""

    def __init__(self, folder: Path, settings: Settings, sm: int, *, cuda_graph: bool) -> None:
        """Load the engine of the artefact in ``folder``.

        Raises:
            TargetError: the runtime is not installed, or refuses the engine.
        """
        self.trt = load_runtime(settings.backend)
        path = folder / ENGINE
        logger = message_log(settings.backend)
        # Engines with ops that are plugins of TensorRT's own are refused before this call.
        self.trt.init_libnvinfer_plugins(logger, "")
        self._runtime: Any = self.trt.Runtime(logger)
        self._engine: Any = self._runtime.deserialize_cuda_engine(_read(path))
        if self._engine is None:
            raise _refused(settings, self.trt.__version__, logger.last())
        if settings.options.weight_streaming:
            self._engine.weight_streaming_budget_v2 = self._engine.get_weight_streaming_automatic_budget()
        self._kernels: Any = None
        if settings.backend == "tensorrt":
            self.context: Any = self._engine.create_execution_context()
        else:
            self._kernels_path = cache_path(path, self.trt.__version__, sm)
            self.context = self._create_rtx_context(cuda_graph=cuda_graph)
        if self.context is None:
            raise TargetError(f"The engine does not start: {logger.last()}")
        self.ports = describe_ports(self._engine, self.trt)

    def _create_rtx_context(self, *, cuda_graph: bool) -> Any:
        config = self._engine.create_runtime_config()
        self._kernels = config.create_runtime_cache()
        restore(self._kernels, self._kernels_path)
        config.set_runtime_cache(self._kernels)
        # Eager: a shape's own kernels are ready from its first run on, so that timings do not change later.
        config.dynamic_shapes_kernel_specialization_strategy = (
            self.trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        if cuda_graph:
            config.cuda_graph_strategy = self.trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return self._engine.create_execution_context(config)

    def close(self) -> None:
        """Free the GPU's memory, in the order in which the objects depend on each other."""
        if self._kernels is not None:
            keep(self._kernels, self._kernels_path)
        self.context = None
        self._kernels = None
        self._engine = None
        self._runtime = None


def load_runtime(backend: BackendName) -> Any:
    """The module that runs what ``backend`` has built.

    Raises:
        TargetError: it is not installed.
    """
    package = PACKAGES[backend]
    if not importable(backend):
        raise TargetError(
            f"The engine was built by {package.module!r}, which is not installed here.", fix=package.install
        )
    return import_module(package.module)


@functools.cache
def message_log(backend: BackendName) -> Any:
    """The one logger that this process can have: TensorRT keeps the first that it is given."""
    trt = load_runtime(backend)

    class MessageLog(trt.ILogger):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: deque[str] = deque(maxlen=_KEPT_MESSAGES)

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self._errors.append(msg.strip())

        def last(self) -> str:
            """The last error, ended by a full stop."""
            return (self._errors[-1] if self._errors else "it says nothing more").rstrip(".") + "."

    return MessageLog()


def describe_ports(engine: Any, trt: Any) -> tuple[Port, ...]:
    """Inputs and outputs of an ``ICudaEngine``, in its order."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    return tuple(_port(engine, trt, name) for name in names)


def _port(engine: Any, trt: Any, name: str) -> Port:
    dtype = _DTYPES.get(engine.get_tensor_dtype(name).name)
    if dtype is None:
        raise TargetError(f"{name!r} is {engine.get_tensor_dtype(name).name}, which numpy does not have.")
    shape = tuple(None if size < 0 else int(size) for size in engine.get_tensor_shape(name))
    return Port(
        TensorSpec(name, np.dtype(dtype), shape),
        engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
        engine.get_tensor_location(name) == trt.TensorLocation.HOST,
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TargetError(
            f"{path} cannot be read: {error.strerror or error}.", fix="Compile the model again."
        ) from error


def _refused(settings: Settings, version: str, said: str) -> TargetError:
    built = f"{settings.backend} {settings.version}".strip()
    module = PACKAGES[settings.backend].module
    return TargetError(
        f"The engine, built by {built}, cannot be loaded by {module} {version}: {said}",
        fix="Compile it again on this machine.",
    )
