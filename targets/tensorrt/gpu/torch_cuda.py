"""A GPU's memory, events and graphs through ``torch.cuda``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeq.errors import TargetError
from edgeq.targets.tensorrt.gpu.memory import Buffer


class TorchCuda:
    """See :class:`edgeq.targets.tensorrt.gpu.memory.Cuda`."""

    def __init__(self) -> None:
        import torch

        self._torch: Any = torch
        self._stream: Any = torch.cuda.Stream()

    @property
    def stream(self) -> int:
        return int(self._stream.cuda_stream)

    def allocate(self, size: int) -> Buffer:
        torch = self._torch
        try:
            device = torch.empty(max(size, 1), dtype=torch.uint8, device="cuda")
            host = torch.empty(max(size, 1), dtype=torch.uint8, pin_memory=True)
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            raise TargetError(f"The GPU has no {size} bytes left: {_first_line(error)}") from error
        return Buffer(int(device.data_ptr()), host.numpy(), (device, host))

    def free(self, buffer: Buffer) -> None:
        """Nothing: the memory goes back when the buffer does."""

    def upload(self, buffer: Buffer, size: int) -> None:
        device, host = buffer.owner
        with self._torch.cuda.stream(self._stream):
            device[:size].copy_(host[:size], non_blocking=True)

    def download(self, buffer: Buffer, size: int) -> None:
        device, host = buffer.owner
        with self._torch.cuda.stream(self._stream):
            host[:size].copy_(device[:size], non_blocking=True)

    def synchronize(self) -> None:
        try:
            self._stream.synchronize()
        except RuntimeError as error:
            raise TargetError(f"The GPU fails: {_first_line(error)}") from error

    def event(self) -> Any:
        return self._torch.cuda.Event(enable_timing=True)

    def record(self, event: Any) -> None:
        event.record(self._stream)

    def seconds(self, begin: Any, end: Any) -> float:
        return float(begin.elapsed_time(end)) / 1000

    def used(self) -> int:
        free, total = self._torch.cuda.mem_get_info()
        return int(total - free)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        torch = self._torch
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                work()
        except RuntimeError as error:
            raise TargetError(f"The GPU's work cannot be captured: {_first_line(error)}") from error
        return lambda: self._replay(graph)

    def close(self) -> None:
        self._torch.cuda.empty_cache()

    def _replay(self, graph: Any) -> None:
        # A graph runs on the stream that is current.
        with self._torch.cuda.stream(self._stream):
            graph.replay()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
