"""Apple's runtime, by way of coremltools: predictions, times and placement. It exists on macOS only."""

from __future__ import annotations

import asyncio
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Array, Arrays
from edgeq.errors import EdgeqError, TargetError
from edgeq.targets.coreml.frontend.signature import Signature
from edgeq.targets.coreml.placement import Placement, read_plan
from edgeq.targets.coreml.ports import PortRunner
from edgeq.targets.coreml.predict import arrays, features
from edgeq.targets.coreml.toolkit import coremltools
from edgeq.targets.inputs import closed_runner

# The option compute-units → coremltools.ComputeUnit.
COMPUTE_UNITS: Mapping[str, str] = {
    "all": "ALL",
    "cpu": "CPU_ONLY",
    "cpu-and-gpu": "CPU_AND_GPU",
    "cpu-and-ne": "CPU_AND_NE",
}


class CoreMLRunner(PortRunner):
    """Runs a package with Core ML: arrays of the ONNX model in, arrays of the ONNX model out."""

    def __init__(self, path: Path, signature: Signature, compute_units: str = "all") -> None:
        """Compile and load the package at ``path``.

        Raises:
            TargetError: this is not macOS, or Core ML does not load the package.
        """
        super().__init__(signature)
        self._model: Any = load_model(path, compute_units)
        self._spec: Any = self._model.get_spec()

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """All outputs by name.

        Raises:
            DataError: an input is missing, unknown, or has the wrong dtype, shape or range.
            TargetError: the runner is closed, or Core ML fails on the inputs.
        """
        if self._model is None:
            raise closed_runner()
        given = features(self._spec, self.signature, inputs)
        with _explained("Core ML fails on the inputs"):
            found = self._model.predict(given)
        return arrays(self._spec, self.signature, found)

    def close(self) -> None:
        self._model = self._spec = None


@dataclass(frozen=True)
class Durations:
    """Times of one kind, in milliseconds, in the order of measuring."""

    milliseconds: tuple[float, ...]

    def percentile(self, percent: float) -> float:
        """The time that ``percent`` of the runs did not exceed."""
        return float(np.percentile(self.milliseconds, percent))


@dataclass(frozen=True)
class Timings:
    """Core ML's own times, without Python: loading the compiled package, and one prediction."""

    load: Durations
    predict: Durations


def latency(
    path: Path,
    signature: Signature,
    inputs: Arrays,
    compute_units: str = "all",
    *,
    iterations: int = 100,
    loads: int = 5,
) -> Timings:
    """Time the package on ``inputs`` with coremltools' ``MLModelBenchmarker``, after one warm-up run.

    Raises:
        TargetError: this is not macOS, or Core ML fails.
        DataError: the inputs are not the model's.
    """
    model = load_model(path, compute_units)
    given = features(model.get_spec(), signature, inputs)
    from coremltools.models.ml_program.experimental.perf_utils import MLModelBenchmarker

    with _explained("Core ML cannot time the package"):
        return asyncio.run(measure(MLModelBenchmarker(model), given, iterations, loads))


async def measure(benchmarker: Any, given: Mapping[str, Any], iterations: int, loads: int) -> Timings:
    """The times that a ``MLModelBenchmarker`` finds."""
    load = await benchmarker.benchmark_load(iterations=loads)
    predict = await benchmarker.benchmark_predict(inputs=dict(given), iterations=iterations, warmup=True)
    return Timings(Durations(tuple(load.samples)), Durations(tuple(predict.samples)))


def placement(path: Path, compute_units: str = "all") -> dict[str, float]:
    """``ane_share``, ``gpu_share``, ``cpu_share``: share (0 to 1) of the operations that Core ML puts there.

    Raises:
        TargetError: this is not macOS, or Core ML makes no plan (it needs macOS 14.4).
    """
    percent = placement_table(path, compute_units).shares()
    return {name: value / 100 for name, value in percent.items()}


def placement_table(path: Path, compute_units: str = "all") -> Placement:
    """The unit of every operation, with estimated costs; see :func:`placement`."""
    model = load_model(path, compute_units)
    from coremltools.models.compute_plan import MLComputePlan

    with _explained("Core ML makes no compute plan of the package", "It needs macOS 14.4 or later."):
        # the model owns the compiled copy: it must live until the plan is read
        plan = MLComputePlan.load_from_path(
            path=model.get_compiled_model_path(), compute_units=_units(compute_units)
        )
        return read_plan(plan)


def load_model(path: Path, compute_units: str) -> Any:
    """The loaded ``MLModel``.

    Raises:
        TargetError: this is not macOS, there is no package, or Core ML does not load it.
    """
    if not _on_macos():
        raise TargetError(
            f"{path} cannot be run here: Core ML exists on macOS only.",
            fix="Run on macOS, or use the interpreter on this machine.",
        )
    if not path.exists():
        raise TargetError(f"There is no package {path}.")
    units = _units(compute_units)
    with _explained(f"Core ML does not load {path}"), warnings.catch_warnings():
        # coremltools only warns when Core ML refuses a package, and fails at the first prediction
        warnings.simplefilter("error", RuntimeWarning)
        model = coremltools().models.MLModel(str(path), compute_units=units)
        model.get_compiled_model_path()
    return model


def _on_macos() -> bool:
    return sys.platform == "darwin"


def _units(name: str) -> Any:
    if name not in COMPUTE_UNITS:
        raise TargetError(
            f"Core ML has no compute units {name!r}.", fix=f"Choose one of: {', '.join(COMPUTE_UNITS)}."
        )
    return getattr(coremltools().ComputeUnit, COMPUTE_UNITS[name])


@contextmanager
def _explained(what: str, fix: str | None = None) -> Iterator[None]:
    """Turn whatever coremltools raises into one sentence."""
    try:
        yield
    except EdgeqError:
        raise
    except Exception as error:  # coremltools raises bare exceptions for what Core ML says
        text = " ".join(str(error).split())[:300] or type(error).__name__
        raise TargetError(f"{what}: {text}", fix=fix) from error
