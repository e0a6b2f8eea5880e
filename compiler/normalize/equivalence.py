"""Prove by running both that normalizing did not change what the model computes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort

from edgeq.calibration.types import Array, Batch, TensorSpec
from edgeq.compiler.model import Model, save
from edgeq.errors import ModelError
from edgeq.progress import Progress, SilentProgress


@dataclass(frozen=True)
class Equivalence:
    """How far the outputs were apart: ``max_abs`` over all outputs, ``max_rel`` relative to each output's largest value.

    ``inputs`` says on what: real samples or random numbers. ``note`` is set when the comparison was not possible.
    """

    max_abs: float
    max_rel: float
    inputs: Literal["real", "random"]
    note: str | None = None


# Folding BatchNorm and merging constants reorders float32 sums: errors of some hundred ulp of the
# largest value of an output are rounding, 1e-3 of it is not.
RELATIVE_TOLERANCE = 1e-3
ABSOLUTE_TOLERANCE = 1e-5


def check_equivalent(
    original: Model,
    normalized: Model,
    batches: Iterable[Batch] | None,
    progress: Progress | None = None,
) -> Equivalence:
    """Run both models on the same inputs and compare all outputs.

    Raises:
        ModelError: an output differs by more than float rounding.
    """
    progress = progress or SilentProgress()
    feeds = [_random_inputs(original.inputs)] if batches is None else [dict(b.inputs) for b in batches]
    kind: Literal["real", "random"] = "random" if batches is None else "real"
    worst_abs = worst_rel = 0.0
    with (
        tempfile.TemporaryDirectory() as folder,
        progress.task("compare with the original", len(feeds)) as step,
    ):
        first, second = (
            _session(m, Path(folder) / n) for m, n in ((original, "a.onnx"), (normalized, "b.onnx"))
        )
        for feed in feeds:
            try:
                wanted = first.run(None, feed)
            except Exception as error:  # noqa: BLE001
                if kind == "real":
                    raise ModelError(f"The model cannot be run: {error}") from error
                return Equivalence(0.0, 0.0, kind, f"The model rejects random inputs: {error}")
            for spec, a, b in zip(original.outputs, wanted, second.run(None, feed), strict=True):
                absolute, relative = _difference(spec.name, a, b)
                worst_abs, worst_rel = max(worst_abs, absolute), max(worst_rel, relative)
            step(1)
    return Equivalence(worst_abs, worst_rel, kind)


def _session(model: Model, path: Path) -> Any:
    save(model, path)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _difference(name: str, a: Array, b: Array) -> tuple[float, float]:
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ModelError(
            f"Normalizing changed output {name!r} from {a.dtype}{a.shape} to {b.dtype}{b.shape}."
        )
    if a.size == 0 or not np.issubdtype(a.dtype, np.number):
        return 0.0, 0.0
    x, y = a.astype(np.float64), b.astype(np.float64)
    if not np.array_equal(np.isnan(x), np.isnan(y)):
        raise ModelError(f"Normalizing changed where output {name!r} is NaN.")
    absolute = float(np.nanmax(np.abs(x - y), initial=0.0))
    scale = float(np.nanmax(np.abs(x), initial=0.0))
    if absolute > ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * scale:
        raise ModelError(
            f"Normalizing changed output {name!r} by {absolute:.3g} (its largest value is {scale:.3g})."
        )
    return absolute, absolute / scale if scale else 0.0


def _random_inputs(specs: list[TensorSpec]) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    feed: dict[str, Array] = {}
    for spec in specs:
        shape = [d if isinstance(d, int) else 2 for d in spec.shape or ()]
        if np.issubdtype(spec.dtype, np.floating):
            feed[spec.name] = rng.standard_normal(shape).astype(spec.dtype)
        else:
            feed[spec.name] = rng.integers(0, 2, shape).astype(spec.dtype)
    return feed
