"""One class for both compilers: TensorRT 10 and 11, and TensorRT for RTX, have the same names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

from edgeq.memory import peak_bytes, reset_peak
from edgeq.targets.tensorrt.backend.log import Heard, Listener, make_logger
from edgeq.targets.tensorrt.backend.monitor import Emit, make_monitor
from edgeq.targets.tensorrt.backend.parts import part
from edgeq.targets.tensorrt.backend.request import BackendName, BuildReport, BuildRequest, Message

MODULES: dict[BackendName, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


class BuildRefusedError(Exception):
    """The parser or the builder said no."""

    def __init__(self, messages: tuple[Message, ...]) -> None:
        super().__init__("; ".join(message.text for message in messages))
        self.messages = messages


class Compiler:
    """TensorRT in this process; ``said`` hears every message, ``emit`` the progress."""

    def __init__(self, backend: BackendName, said: Callable[[str], None], emit: Emit) -> None:
        self.backend = backend
        self._trt = import_module(MODULES[backend])
        self._listener = Listener(said)
        self._logger = make_logger(self._trt, self._listener)
        self._monitor = make_monitor(self._trt, emit)

    def build(self, request: BuildRequest) -> BuildReport:
        """Build what ``request`` says.

        Raises:
            BuildRefusedError: the compiler refuses it.
        """
        begin = perf_counter()
        reset_peak()
        heard = self._listener.heard = Heard()
        builder = self._trt.Builder(self._logger)
        network = self._network(builder, request.model, heard)
        written, tables = self._engine(builder, network, request, heard)
        return BuildReport(
            backend=self.backend,
            version=self._trt.__version__,
            engine_bytes=written,
            seconds=perf_counter() - begin,
            peak_mb=peak_bytes() / 2**20,
            tables=tables,
            messages=_warnings(heard),
        )

    def _network(self, builder: Any, model: Path, heard: Heard) -> Any:
        trt = self._trt
        typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(typed)
        parser = trt.OnnxParser(network, self._logger)
        if parser.parse_from_file(os.fspath(model)):
            return network
        raise BuildRefusedError((*_parse_errors(parser), *_warnings(heard)))

    def _engine(
        self, builder: Any, network: Any, request: BuildRequest, heard: Heard
    ) -> tuple[int, dict[int, str]]:
        written = 0
        tables: dict[int, str] = {}
        if request.engine is not None or len(request.sm) < 2:
            engine = self._serialize(builder, network, request, request.sm, heard)
            written = _write(engine, request.engine)
            if len(request.sm) < 2:
                return written, {next(iter(request.sm), 0): "".join(heard.tables)}
        for sm in request.sm:
            heard.tables.clear()
            self._serialize(builder, network, request, (sm,), heard)
            tables[sm] = "".join(heard.tables)
        return written, tables

    def _serialize(
        self, builder: Any, network: Any, request: BuildRequest, sm: tuple[int, ...], heard: Heard
    ) -> Any:
        config = self._config(builder, request, sm)
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise BuildRefusedError((*_errors(heard), *_warnings(heard)))
        return engine

    def _config(self, builder: Any, request: BuildRequest, sm: tuple[int, ...]) -> Any:
        trt = self._trt
        config = builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        config.progress_monitor = self._monitor
        if sm:
            config.num_compute_capabilities = len(sm)
        for index, capability in enumerate(sm):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{capability}"), index)
        if request.weight_streaming:
            config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
        if request.optimization_level is not None:
            config.builder_optimization_level = request.optimization_level
        if request.workspace_mb is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace_mb << 20)
        for profile in _profiles(builder, request):
            config.add_optimization_profile(profile)
        return config


def _profiles(builder: Any, request: BuildRequest) -> Iterator[Any]:
    for shapes in request.profiles:
        profile = builder.create_optimization_profile()
        for name, shape in shapes.items():
            profile.set_shape(name, shape.min, shape.opt, shape.max)
        yield profile


def _write(engine: Any, path: Path | None) -> int:
    if path is not None:
        unfinished = part(path, os.getpid())
        unfinished.write_bytes(engine)
        unfinished.replace(path)
    return int(engine.nbytes)


def _parse_errors(parser: Any) -> Iterator[Message]:
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        yield Message(
            severity="error", text=error.desc(), node=error.node_name(), op_type=error.node_operator()
        )


def _errors(heard: Heard) -> tuple[Message, ...]:
    return tuple(Message(severity="error", text=text) for text in heard.errors)


def _warnings(heard: Heard) -> tuple[Message, ...]:
    return tuple(Message(severity="warning", text=text) for text in heard.warnings)
