"""A GPU's memory, events and graphs through cuda-python (``cuda.bindings.runtime``)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeq.errors import TargetError
from edgeq.targets.tensorrt.gpu.memory import Buffer


class CudaPython:
    """See :class:`edgeq.targets.tensorrt.gpu.memory.Cuda`."""

    def __init__(self) -> None:
        from cuda.bindings import runtime

        self._runtime: Any = runtime
        self._stream: Any = self._call("cudaStreamCreateWithFlags", runtime.cudaStreamNonBlocking)
        self._graph: Any = None
        self._events: list[Any] = []

    @property
    def stream(self) -> int:
        return int(self._stream)

    def allocate(self, size: int) -> Buffer:
        size = max(size, 1)
        address = self._call("cudaMalloc", size)
        try:
            pinned = self._call("cudaMallocHost", size)
        except TargetError:
            self._call("cudaFree", address)
            raise
        host = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(int(pinned)))
        return Buffer(int(address), host, (address, pinned))

    def free(self, buffer: Buffer) -> None:
        address, pinned = buffer.owner
        self._call("cudaFree", address)
        self._call("cudaFreeHost", pinned)

    def upload(self, buffer: Buffer, size: int) -> None:
        address, pinned = buffer.owner
        self._copy(address, pinned, size, self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice)

    def download(self, buffer: Buffer, size: int) -> None:
        address, pinned = buffer.owner
        self._copy(pinned, address, size, self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost)

    def synchronize(self) -> None:
        self._call("cudaStreamSynchronize", self._stream)

    def event(self) -> Any:
        self._events.append(self._call("cudaEventCreate"))
        return self._events[-1]

    def record(self, event: Any) -> None:
        self._call("cudaEventRecord", event, self._stream)

    def seconds(self, begin: Any, end: Any) -> float:
        return float(self._call("cudaEventElapsedTime", begin, end)) / 1000

    def used(self) -> int:
        free, total = self._call("cudaMemGetInfo")
        return int(total - free)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self._stream, mode)
        try:
            work()
        except TargetError:
            # The stream stays in capture mode until this; the graph is of no use.
            self._runtime.cudaStreamEndCapture(self._stream)
            raise
        graph = self._call("cudaStreamEndCapture", self._stream)
        ready = self._call("cudaGraphInstantiate", graph, 0)
        self._call("cudaGraphDestroy", graph)
        self._drop_graph()
        self._graph = ready
        return lambda: self._call("cudaGraphLaunch", ready, self._stream)

    def close(self) -> None:
        self._drop_graph()
        for event in self._events:
            self._call("cudaEventDestroy", event)
        self._call("cudaStreamDestroy", self._stream)
        self._events = []

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self._call("cudaGraphExecDestroy", self._graph)
        self._graph = None

    def _copy(self, to: Any, source: Any, size: int, kind: Any) -> None:
        self._call("cudaMemcpyAsync", to, source, size, kind, self._stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        """The results of a function of the CUDA runtime; raises TargetError when it returns an error."""
        error, *results = getattr(self._runtime, name)(*arguments)
        if error != self._runtime.cudaError_t.cudaSuccess:
            raise TargetError(f"CUDA's {name} fails: {error.name}.", fix="See what else runs on the GPU.")
        return results[0] if len(results) == 1 else tuple(results)
