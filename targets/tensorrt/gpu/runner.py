"""Runs an engine on the GPU of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.calibration.types import Array, Arrays, TensorSpec
from edgeq.errors import TargetError
from edgeq.targets.inputs import check_inputs, closed_runner
from edgeq.targets.tensorrt.gpu.built_for import check_built_for
from edgeq.targets.tensorrt.gpu.device import require
from edgeq.targets.tensorrt.gpu.engine import Engine
from edgeq.targets.tensorrt.gpu.execution import Execution
from edgeq.targets.tensorrt.gpu.memory import open_cuda
from edgeq.targets.tensorrt.settings import Settings

# Only types: a fresh process that opens a runner must not pay for importing the compiler.
if TYPE_CHECKING:
    from edgeq.benchmarks.options import BenchOptions
    from edgeq.progress import Progress
    from edgeq.targets.base import DeviceReport


@dataclass(frozen=True)
class Timed:
    """Seconds of one inference by CUDA events: on the GPU alone, and with the copies to it and back."""

    device: float
    total: float


class EngineRunner:
    """One engine: arrays in, arrays out. Use :meth:`close` (or ``with``) to free its memory."""

    def __init__(self, folder: Path) -> None:
        """Load the engine of the artefact in ``folder``.

        Raises:
            TargetError: no GPU, one that the engine was not built for, or a runtime that cannot load it.
            MissingExtraError: neither torch with CUDA nor cuda-python is installed.
            ModelError: the artefact is damaged.
        """
        device = require()
        settings = Settings.read(folder)
        check_built_for(settings, device)
        graph = settings.options.cuda_graph
        self._folder = folder
        self._cuda = open_cuda()
        self._events: list[Any] = []
        try:
            self._engine = Engine(folder, settings, device.sm, cuda_graph=graph)
        except TargetError:
            self._cuda.close()
            raise
        self._execution: Execution | None = Execution(
            self._engine.trt,
            self._engine.context,
            self._engine.ports,
            self._cuda,
            settings.profiles,
            # TensorRT for RTX captures by itself, when the kernels for a new shape are compiled.
            capture=graph and settings.backend == "tensorrt",
        )

    @property
    def inputs(self) -> list[TensorSpec]:
        return [port.spec for port in self._engine.ports if port.is_input]

    @property
    def outputs(self) -> list[TensorSpec]:
        return [port.spec for port in self._engine.ports if not port.is_input]

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """All outputs by name.

        Raises:
            DataError: an input is missing, unknown, has the wrong dtype, or a shape outside of all profiles.
            TargetError: the runner is closed, or the GPU fails.
        """
        execution = self._loaded(inputs)
        execution.upload()
        execution.compute()
        execution.download()
        self._cuda.synchronize()
        return execution.results()

    def timed(self, inputs: Arrays) -> Timed:
        """Run once, and what the GPU's own clock says of it; raises like :meth:`run`."""
        execution, cuda = self._loaded(inputs), self._cuda
        begin, start, end, done = self._marks()
        cuda.record(begin)
        execution.upload()
        cuda.record(start)
        execution.compute()
        cuda.record(end)
        execution.download()
        cuda.record(done)
        cuda.synchronize()
        return Timed(cuda.seconds(start, end), cuda.seconds(begin, done))

    def measure_device(
        self, original: Path | None, feeds: Sequence[Arrays], options: BenchOptions, progress: Progress
    ) -> DeviceReport:
        """Time the engine beside an FP16 and an FP32 engine of ``original``; see :mod:`.compare`."""
        from edgeq.targets.tensorrt.gpu.compare import compare

        return compare(self._folder, original, feeds, options, progress)

    def _marks(self) -> list[Any]:
        while len(self._events) < 4:
            self._events.append(self._cuda.event())
        return self._events

    def close(self) -> None:
        if self._execution is None:
            return
        self._execution.close()
        self._execution = None
        self._engine.close()
        self._cuda.close()

    def __enter__(self) -> EngineRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _loaded(self, inputs: Arrays) -> Execution:
        if self._execution is None:
            raise closed_runner()
        check_inputs(self.inputs, inputs)
        self._execution.load(inputs)
        return self._execution
