"""Memory, events and graphs of a GPU behind one small interface; torch or cuda-python do the work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgeq.errors import MissingExtraError


@dataclass(frozen=True)
class Buffer:
    """Memory on the GPU and page-locked memory of the same size on the host, in bytes.

    ``address`` is that on the GPU; ``host`` a view of the host's part; ``owner`` what frees them.
    """

    address: int
    host: npt.NDArray[np.uint8]
    owner: Any

    @property
    def size(self) -> int:
        return self.host.nbytes


class Cuda(Protocol):
    """One stream of the first GPU. Everything but :meth:`synchronize` only queues work on it."""

    @property
    def stream(self) -> int:
        """The handle that TensorRT takes."""
        ...

    def allocate(self, size: int) -> Buffer:
        """At least ``size`` bytes, aligned to 256; raises TargetError when the memory is full."""
        ...

    def free(self, buffer: Buffer) -> None: ...

    def upload(self, buffer: Buffer, size: int) -> None:
        """The first ``size`` bytes from the host to the GPU."""
        ...

    def download(self, buffer: Buffer, size: int) -> None:
        """The first ``size`` bytes from the GPU to the host; there after :meth:`synchronize`."""
        ...

    def synchronize(self) -> None:
        """Wait for all that was queued; raises TargetError when some of it failed."""
        ...

    def event(self) -> Any:
        """A mark that :meth:`record` sets; it lives as long as this."""
        ...

    def record(self, event: Any) -> None:
        """Mark this point of the stream."""
        ...

    def seconds(self, begin: Any, end: Any) -> float:
        """Time on the GPU between two events that are over."""
        ...

    def used(self) -> int:
        """Bytes of the GPU's memory that are taken, by whomever."""
        ...

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """What ``work`` queues as a CUDA graph; returns what queues the graph, until the next is captured.

        Raises:
            TargetError: it cannot be captured.
        """
        ...

    def close(self) -> None: ...


def open_cuda() -> Cuda:
    """A stream of the first GPU, through torch where it has CUDA, else through cuda-python.

    Raises:
        MissingExtraError: neither is installed.
        TargetError: CUDA does not start.
    """
    if _torch_has_cuda():
        from edgeq.targets.tensorrt.gpu.torch_cuda import TorchCuda

        return TorchCuda()
    if _has_cuda_python():
        from edgeq.targets.tensorrt.gpu.cuda_python import CudaPython

        return CudaPython()
    raise MissingExtraError("Running an engine", "tensorrt")


def _torch_has_cuda() -> bool:
    if find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


def _has_cuda_python() -> bool:
    try:
        return find_spec("cuda.bindings.runtime") is not None
    except ModuleNotFoundError:  # no package 'cuda' at all
        return False
