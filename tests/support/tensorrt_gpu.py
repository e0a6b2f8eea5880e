"""A stand-in for a GPU: TensorRT's context on host memory, with the methods and the rules of the real one.

Its methods have the names and parameters of ``tensorrt_rtx`` (a test compares them), and it refuses what the
real one refuses: to run before shapes and addresses are set, or with a shape outside of the profile.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgeq.calibration.types import TensorSpec
from edgeq.errors import TargetError
from edgeq.targets.tensorrt.backend.request import InputShapes
from edgeq.targets.tensorrt.gpu.engine import Port
from edgeq.targets.tensorrt.gpu.memory import Buffer


class HostCuda:
    """Queues work like a stream does: nothing happens before :meth:`synchronize`."""

    stream = 7

    def __init__(self) -> None:
        self._queue: list[Callable[[], None]] = []
        self._capturing: list[Callable[[], None]] | None = None
        self.live: dict[int, Buffer] = {}
        self.replayed = 0
        self.capturable = True
        self.clock = 0.0

    def allocate(self, size: int) -> Buffer:
        device = np.zeros(max(size, 1), np.uint8)
        buffer = Buffer(device.ctypes.data, np.zeros(max(size, 1), np.uint8), device)
        self.live[buffer.address] = buffer
        return buffer

    def free(self, buffer: Buffer) -> None:
        del self.live[buffer.address]

    def upload(self, buffer: Buffer, size: int) -> None:
        self.enqueue(lambda: np.copyto(buffer.owner[:size], buffer.host[:size]))

    def download(self, buffer: Buffer, size: int) -> None:
        self.enqueue(lambda: np.copyto(buffer.host[:size], buffer.owner[:size]))

    def synchronize(self) -> None:
        assert self._capturing is None, "the stream is being captured"
        while self._queue:
            self._queue.pop(0)()

    def event(self) -> dict[str, float]:
        return {}

    def record(self, event: dict[str, float]) -> None:
        def mark() -> None:
            self.clock += 1.0
            event["at"] = self.clock

        self.enqueue(mark)

    def seconds(self, begin: dict[str, float], end: dict[str, float]) -> float:
        return end["at"] - begin["at"]

    def used(self) -> int:
        return sum(buffer.size for buffer in self.live.values())

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        if not self.capturable:
            raise TargetError("cudaErrorStreamCaptureUnsupported")
        self._capturing = captured = []
        work()
        self._capturing = None

        def replay() -> None:
            self.replayed += 1
            for step in captured:
                self.enqueue(step)

        return replay

    def close(self) -> None:
        assert not self.live, "buffers were not freed"

    def enqueue(self, step: Callable[[], None]) -> None:
        (self._queue if self._capturing is None else self._capturing).append(step)


class Context:
    """``y = 2 x`` of float32 [n, 4], and ``found``: where x > 0, int64 [m, 2], whose m only the data know."""

    def __init__(self, cuda: HostCuda, profiles: Sequence[dict[str, InputShapes]]) -> None:
        self._cuda = cuda
        self._profiles = profiles
        self.active_optimization_profile = 0
        self._shape: tuple[int, ...] | None = None
        self._addresses: dict[str, int] = {}
        self._allocator: Any = None
        self.enqueued = 0

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert stream_handle == self._cuda.stream
        self.active_optimization_profile = profile_index
        self._shape = None
        return True

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        assert name == "x"
        allowed = self._profiles[self.active_optimization_profile]["x"]
        fits = all(a <= s <= b for a, s, b in zip(allowed.min, shape, allowed.max, strict=True))
        self._shape = tuple(shape) if fits else None
        return fits

    def infer_shapes(self) -> list[str]:
        return [] if self._shape else ["x"]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert self._shape is not None
        return (-1, 2) if name == "found" else self._shape

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def set_output_allocator(self, name: str, output_allocator: Any) -> bool:
        assert name == "found"
        self._allocator = output_allocator
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle == self._cuda.stream
        if self._shape is None or not {"x", "y"} <= set(self._addresses):
            return False
        self.enqueued += 1
        shape, addresses = self._shape, dict(self._addresses)
        if self._allocator is not None:
            self._find(shape)
        self._cuda.enqueue(lambda: _doubled(shape, addresses))
        return True

    def _find(self, shape: tuple[int, ...]) -> None:
        """The real one waits for its own result here, since it must know how large the output is."""
        self._cuda.synchronize()
        found = np.argwhere(_at(self._addresses["x"], shape, np.float32) > 0)
        address = self._allocator.reallocate_output_async("found", 0, found.nbytes, 256, self._cuda.stream)
        self._allocator.notify_shape("found", found.shape)
        if found.size:
            np.copyto(_at(address, found.shape, np.int64), found)


class Trt:
    """The part of the module that running needs."""

    class IOutputAllocator:
        def __init__(self) -> None:
            pass


def ports(*, found: bool = False) -> list[Port]:
    """The context's inputs and outputs."""
    float4 = TensorSpec("x", np.dtype(np.float32), (None, 4))
    made = [Port(float4, True, False), Port(TensorSpec("y", float4.dtype, float4.shape), False, False)]
    if found:
        made.append(Port(TensorSpec("found", np.dtype(np.int64), (None, 2)), False, False))
    return made


def _doubled(shape: tuple[int, ...], addresses: dict[str, int]) -> None:
    np.copyto(
        _at(addresses["y"], shape, np.float32),
        2 * _at(addresses["x"], shape, np.float32),
        casting="same_kind",
    )


def _at(address: int, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray[Any, Any]:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype).reshape(shape)
