"""Outputs whose shape only the data decide: TensorRT asks for their memory while it runs."""

from __future__ import annotations

from typing import Any

from edgeq.errors import TargetError
from edgeq.targets.tensorrt.gpu.memory import Buffer, Cuda


def growing_output(trt: Any, cuda: Cuda) -> Any:
    """An ``IOutputAllocator`` with ``buffer`` and ``shape`` of the output, after the run."""

    class GrowingOutput(trt.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.buffer: Buffer | None = None
            self.shape: tuple[int, ...] = ()

        # TensorRT's signature; a None tells it that there is no memory, an exception would end the process.
        def reallocate_output_async(
            self, tensor_name: str, memory: int, size: int, alignment: int, stream: int
        ) -> int | None:
            return self._grow(size)

        def reallocate_output(self, tensor_name: str, memory: int, size: int, alignment: int) -> int | None:
            return self._grow(size)

        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            self.shape = tuple(shape)

        def _grow(self, size: int) -> int | None:
            if self.buffer is not None and self.buffer.size >= size:
                return self.buffer.address
            try:
                if self.buffer is not None:
                    cuda.free(self.buffer)
                    self.buffer = None
                self.buffer = cuda.allocate(size)
            except TargetError:
                return None
            return self.buffer.address

    return GrowingOutput()
