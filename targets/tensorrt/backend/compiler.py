"""One class for both compilers: TensorRT 10 and 11, and TensorRT for RTX, have the same names."""

from __future__ import annotations

import glob
import mmap
import os
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any, BinaryIO

from edgeq.memory import peak_bytes, reset_peak
from edgeq.targets.tensorrt.architectures import TURING
from edgeq.targets.tensorrt.backend.configure import configure
from edgeq.targets.tensorrt.backend.engine_file import Writer, engine_file, make_stream
from edgeq.targets.tensorrt.backend.log import Heard, Listener, make_logger
from edgeq.targets.tensorrt.backend.messages import error, parse_errors, refused, warnings
from edgeq.targets.tensorrt.backend.monitor import Emit, make_monitor
from edgeq.targets.tensorrt.backend.packages import PACKAGES
from edgeq.targets.tensorrt.backend.request import BackendName, BuildReport, BuildRequest
from edgeq.targets.tensorrt.backend.timing_cache import store_timing_cache, use_timing_cache

# Bytes of a model whose engine is written while it is built, rather than from memory.
_LARGE = 64 << 20
# Names that the compiler makes up: numbers of values, hashes of generated kernels.
_MADE_UP = re.compile(r"__mye\d+|_0x[0-9a-f]+")


class Compiler:
    """TensorRT in this process; ``said`` hears every message, ``emit`` the progress."""

    def __init__(self, backend: BackendName, said: Callable[[str], None], emit: Emit) -> None:
        self.backend = backend
        self._trt = import_module(PACKAGES[backend].module)
        self._listener = Listener(said)
        self._logger = make_logger(self._trt, self._listener)
        # Some ONNX ops are plugins of TensorRT's own; TensorRT for RTX has the call and no plugins.
        self._trt.init_libnvinfer_plugins(self._logger, "")
        self._monitor = make_monitor(self._trt, emit)

    def build(self, request: BuildRequest) -> BuildReport:
        """Build what ``request`` says.

        Raises:
            BuildRefusedError: the compiler refuses it, or a file cannot be written.
        """
        begin = perf_counter()
        reset_peak()
        heard = self._listener.begin()
        try:
            size, table = self._build(request, heard)
        except OSError as reason:
            raise refused(heard, error(str(reason))) from reason
        return BuildReport(
            backend=self.backend,
            version=self._trt.__version__,
            engine_bytes=size,
            seconds=perf_counter() - begin,
            peak_mb=peak_bytes() / 2**20,
            tables=dict.fromkeys(request.sm or (0,), table),
            messages=warnings(heard),
        )

    def _build(self, request: BuildRequest, heard: Heard) -> tuple[int, str]:
        builder = self._builder(heard)
        network = self._network(builder, request.model, heard)
        classic = self.backend == "tensorrt"
        with engine_file(request.engine, keep=classic) as file:
            size = self._serialize(builder, network, request, request.sm, file, heard)
            table = self._inspect(file, heard) if classic else "".join(heard.tables)
        if TURING in request.sm and len(request.sm) > 1:
            self._compare_without_turing(builder, network, request, table, heard)
        return size, table

    def _builder(self, heard: Heard) -> Any:
        try:
            return self._trt.Builder(self._logger)
        except TypeError as reason:
            # The bindings' way to say that the library returned nothing.
            raise refused(
                heard, error("TensorRT does not start without an NVIDIA GPU and its driver")
            ) from reason

    def _network(self, builder: Any, model: Path, heard: Heard) -> Any:
        trt = self._trt
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse_from_file(os.fspath(model)):
            raise refused(heard, *parse_errors(parser))
        return network

    def _serialize(
        self,
        builder: Any,
        network: Any,
        request: BuildRequest,
        sm: tuple[int, ...],
        file: BinaryIO,
        heard: Heard,
    ) -> int:
        """Build into ``file``; returns the size in bytes."""
        config = configure(self._trt, builder, request, sm, heard)
        config.progress_monitor = self._monitor
        if request.timing_cache is not None:
            heard.warnings.extend(filter(None, [use_timing_cache(config, request.timing_cache)]))
        writer = Writer(file)
        if not self._write(builder, network, config, writer, large=_size(request.model) > _LARGE):
            reasons = () if writer.failure is None else (error(str(writer.failure)),)
            raise refused(heard, *reasons)
        if request.timing_cache is not None:
            store_timing_cache(config, request.timing_cache)
        return writer.bytes

    def _write(self, builder: Any, network: Any, config: Any, writer: Writer, *, large: bool) -> bool:
        # Not in the first versions of TensorRT 10. It has a buffer of 64 MiB, too slow for small models.
        if large and hasattr(builder, "build_serialized_network_to_stream"):
            stream = make_stream(self._trt, writer)
            return bool(builder.build_serialized_network_to_stream(network, config, stream))
        engine = builder.build_serialized_network(network, config)
        return engine is not None and writer.write(engine) > 0

    def _inspect(self, file: BinaryIO, heard: Heard) -> str:
        """The layer table of a finished engine as JSON; it needs the GPU that the engine was built for."""
        file.flush()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            engine = self._trt.Runtime(self._logger).deserialize_cuda_engine(content)
        if engine is None:
            raise refused(heard)
        inspector = engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def _compare_without_turing(
        self, builder: Any, network: Any, request: BuildRequest, table: str, heard: Heard
    ) -> None:
        later = tuple(sm for sm in request.sm if sm != TURING)
        heard.tables.clear()
        with engine_file(None, keep=False) as nowhere:
            self._serialize(builder, network, request, later, nowhere, heard)
        if _MADE_UP.sub("", "".join(heard.tables)) != _MADE_UP.sub("", table):
            names = ", ".join(f"SM{sm}" for sm in later)
            heard.warnings.append(
                f"The engine is compiled once for all its GPUs, as SM75 needs it: {names} alone would have "
                "other layers. Build one engine for SM75 and one for the others."
            )


def _size(model: Path) -> int:
    """Bytes of an ONNX file and of the files beside it that hold its weights (``model.onnx.data``)."""
    return sum(file.stat().st_size for file in model.parent.glob(f"{glob.escape(model.name)}*"))
