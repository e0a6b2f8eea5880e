"""One inference as steps on a stream: shapes and buffers, upload, compute, download."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from edgeq.calibration.types import Array, Arrays
from edgeq.errors import TargetError
from edgeq.targets.tensorrt.backend.request import Shape
from edgeq.targets.tensorrt.gpu.engine import Port
from edgeq.targets.tensorrt.gpu.memory import Buffer, Cuda
from edgeq.targets.tensorrt.gpu.outputs import growing_output
from edgeq.targets.tensorrt.gpu.profile_choice import Profile, choose_profile


class Execution:
    """Runs an ``IExecutionContext`` on the stream of ``cuda``.

    ``capture``: from the second run with the same shapes on, what the first has queued is replayed as a CUDA
    graph. (NVIDIA's guide: the first enqueue after a change of shapes does work that cannot be captured.)
    """

    def __init__(
        self,
        trt: Any,
        context: Any,
        ports: Sequence[Port],
        cuda: Cuda,
        profiles: Sequence[Profile],
        *,
        capture: bool,
    ) -> None:
        self._trt = trt
        self._context = context
        self._cuda = cuda
        self._profiles = profiles
        self._inputs = [port for port in ports if port.is_input]
        self._outputs = [port for port in ports if not port.is_input]
        self._buffers: dict[str, Buffer] = {}
        self._growing: dict[str, Any] = {}
        self._shapes: dict[str, Shape] = {}
        self._capture = capture
        self._replay: Callable[[], None] | None = None
        self._ran = False

    @property
    def captured(self) -> bool:
        """Whether runs replay a CUDA graph now."""
        return self._replay is not None

    def load(self, inputs: Arrays) -> None:
        """Put ``inputs`` into page-locked memory, and get ready for their shapes.

        Raises:
            DataError: the engine was not built for these shapes.
            TargetError: TensorRT refuses them, or the memory is full.
        """
        shapes = {port.spec.name: tuple(inputs[port.spec.name].shape) for port in self._inputs}
        changed = shapes != {name: self._shapes.get(name) for name in shapes}
        if changed:
            self._forget_graph()
            self._select(choose_profile(self._profiles, shapes))
            self._reserve_inputs(shapes)
        for port in self._inputs:
            _fill(self._buffers[port.spec.name], inputs[port.spec.name])
        if changed:
            # After the values: an input that is a shape decides those of the outputs.
            self._set_shapes(shapes)

    def upload(self) -> None:
        """Queue the copies to the GPU."""
        for port in self._inputs:
            if not port.on_host:
                self._cuda.upload(self._buffers[port.spec.name], self._bytes(port))

    def compute(self) -> None:
        """Queue the inference; raises TargetError when TensorRT refuses."""
        if self._ran and self._replay is None and self._capture and not self._growing:
            self._replay = self._captured()
        if self._replay is None:
            self._enqueue()
        else:
            self._replay()
        self._ran = True

    def download(self) -> None:
        """Queue the copies back."""
        for port in self._outputs:
            buffer = self._output(port)
            if buffer is not None and not port.on_host:
                self._cuda.download(buffer, self._bytes(port))

    def results(self) -> dict[str, Array]:
        """The outputs, copied, after the stream was synchronized."""
        return {port.spec.name: self._result(port) for port in self._outputs}

    def close(self) -> None:
        """Free the buffers."""
        self._forget_graph()
        growing = (output.buffer for output in self._growing.values() if output.buffer is not None)
        for buffer in (*self._buffers.values(), *growing):
            self._cuda.free(buffer)
        self._buffers, self._growing = {}, {}
        self._context = None

    def _select(self, profile: int) -> None:
        if profile == self._context.active_optimization_profile:
            return
        if not self._context.set_optimization_profile_async(profile, self._cuda.stream):
            raise TargetError(f"TensorRT does not select the optimization profile {profile}.")
        self._cuda.synchronize()

    def _reserve_inputs(self, shapes: dict[str, Shape]) -> None:
        for port in self._inputs:
            name = port.spec.name
            self._reserve(port, prod(shapes[name]) * port.spec.dtype.itemsize)
            self._shapes[name] = shapes[name]

    def _set_shapes(self, shapes: dict[str, Shape]) -> None:
        try:
            for name, shape in shapes.items():
                self._require(
                    self._context.set_input_shape(name, shape), f"the shape {list(shape)} of {name!r}"
                )
            missing = self._context.infer_shapes()
            self._require(not missing, f"the shapes of the inputs: {', '.join(missing)} is not set")
            for port in self._outputs:
                self._place_output(port)
        except TargetError:
            self._shapes = {}
            raise

    def _place_output(self, port: Port) -> None:
        """Memory for an output of known shape, or TensorRT's way to ask for it."""
        name = port.spec.name
        shape = tuple(int(size) for size in self._context.get_tensor_shape(name))
        if min(shape, default=0) >= 0:
            self._shapes[name] = shape
            self._reserve(port, prod(shape) * port.spec.dtype.itemsize)
            return
        if name not in self._growing:
            self._growing[name] = growing_output(self._trt, self._cuda)
            taken = self._context.set_output_allocator(name, self._growing[name])
            self._require(taken, f"memory for {name!r}")

    def _reserve(self, port: Port, size: int) -> None:
        """A buffer of at least ``size`` bytes, known to TensorRT."""
        name = port.spec.name
        held = self._buffers.get(name)
        if held is None or held.size < size:
            if held is not None:
                self._cuda.free(self._buffers.pop(name))
            held = self._buffers[name] = self._cuda.allocate(size)
        address = held.host.ctypes.data if port.on_host else held.address
        self._require(self._context.set_tensor_address(name, address), f"the memory of {name!r}")

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._cuda.stream):
            raise TargetError("TensorRT fails to run the engine.", fix="See what else runs on the GPU.")

    def _captured(self) -> Callable[[], None] | None:
        self._cuda.synchronize()
        try:
            return self._cuda.capture(self._enqueue)
        except TargetError:
            # Control flow and streamed weights cannot be captured: such engines run without a graph.
            self._capture = False
            return None

    def _forget_graph(self) -> None:
        self._replay = None
        self._ran = False

    def _output(self, port: Port) -> Buffer | None:
        growing = self._growing.get(port.spec.name)
        if growing is None:
            return self._buffers[port.spec.name]
        self._shapes[port.spec.name] = growing.shape
        buffer: Buffer | None = growing.buffer
        return buffer

    def _bytes(self, port: Port) -> int:
        return prod(self._shapes[port.spec.name]) * port.spec.dtype.itemsize

    def _result(self, port: Port) -> Array:
        buffer, shape = self._output(port), self._shapes[port.spec.name]
        if buffer is None:
            return np.empty(shape, port.spec.dtype)
        return buffer.host[: self._bytes(port)].view(port.spec.dtype).reshape(shape).copy()

    def _require(self, done: bool, what: str) -> None:
        if not done:
            raise TargetError(f"TensorRT does not take {what}.", fix="Compile the model again.")


def _fill(buffer: Buffer, array: Array) -> None:
    np.copyto(buffer.host[: array.nbytes].view(array.dtype).reshape(array.shape), array)
