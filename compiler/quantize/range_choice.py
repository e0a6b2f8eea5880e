"""The range method ``auto``: the method whose quantized model has outputs closest to the float model's.

No method is best on all models, and a local criterion does not tell: measured on eight models, choosing per
tensor by its own squared error, or by the output error of the layers that read it, lost to the plain
percentile on some. So a few methods are tried on the whole model, on some calibration samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model, save
from edgeq.compiler.quantize.simulation import session_options
from edgeq.compiler.recipe import RangeMethod

CANDIDATES: tuple[RangeMethod, ...] = ("percentile", "mse", "minmax")
Outputs = Sequence[Mapping[str, Array]]


def choose_method(
    build: Callable[[RangeMethod], Model],
    batches: Sequence[Mapping[str, Array]],
    reference: Outputs,
    folder: Path,
    threads: int | None,
    *,
    in_float: bool = False,
) -> tuple[RangeMethod, dict[RangeMethod, float]]:
    """Try every candidate and return the best with all errors.

    Args:
        build: makes the quantized model of a method.
        batches: inputs of the model.
        reference: the float model's outputs for each batch.
        folder: where models may be written.
        threads: of ONNX Runtime.
        in_float: run with float arithmetic between the roundings.
    """
    errors = {}
    for method in CANDIDATES:
        path = folder / f"{method}.onnx"
        files = save(build(method), path)
        errors[method] = output_error(run_outputs(path, batches, threads, in_float=in_float), reference)
        for file in files:
            file.unlink()
    return min(CANDIDATES, key=lambda method: errors[method]), errors


def run_outputs(
    path: Path, batches: Sequence[Mapping[str, Array]], threads: int | None, *, in_float: bool = False
) -> list[dict[str, Array]]:
    """The outputs of the model at ``path`` for each batch."""
    options = session_options(threads, in_float=in_float)
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()}
    names = [output.name for output in session.get_outputs()]
    results = []
    for batch in batches:
        fed = {name: array for name, array in batch.items() if name in wanted}
        results.append(dict(zip(names, session.run(names, fed), strict=True)))
    return results


def output_error(outputs: Outputs, reference: Outputs) -> float:
    """Squared error over power, averaged over the outputs; 1 for an output of another shape."""
    names = list(reference[0])
    return float(np.mean([_one_error(name, outputs, reference) for name in names]))


def _one_error(name: str, outputs: Outputs, reference: Outputs) -> float:
    noise = power = 0.0
    for got, wanted in zip(outputs, reference, strict=True):
        a, b = np.asarray(got[name]), np.asarray(wanted[name])
        if a.shape != b.shape:
            return 1.0
        if b.dtype.kind != "f":
            noise, power = noise + float((a != b).sum()), power + b.size
            continue
        a, b = a.astype(np.float64), b.astype(np.float64)
        noise, power = noise + float(np.square(a - b).sum()), power + float(np.square(b).sum())
    return noise / max(power, 1e-30)
