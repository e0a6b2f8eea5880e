"""Prove by running both that normalizing did not change what the model computes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort

from edgeq.calibration.random_inputs import dimension, random_inputs
from edgeq.calibration.types import Array, Arrays, Batch, TensorSpec
from edgeq.compiler.model import Model, save
from edgeq.compiler.normalize.differences import (
    ABSOLUTE_TOLERANCE,
    NOISE_FACTOR,
    RELATIVE_TOLERANCE,
    Difference,
    difference,
)
from edgeq.compiler.normalize.folding import RUNTIME_ERRORS
from edgeq.compiler.normalize.names import UniqueNamesPass
from edgeq.errors import DataError, ModelError
from edgeq.progress import Progress, SilentProgress

# Of real data a few batches show the same differences as all of it.
_MAX_BATCHES = 4
# Sizes that symbolic dimensions get one after the other until the model accepts one: audio models want more
# than one window, image models more than their strides.
_SIZES = (None, 64, 512, 1024)
# Values of all random inputs together: where most dimensions are free, the large sizes would fill the memory.
_MOST_VALUES = 2**26
_SEED = 0
_BATCH = 2
_NUDGE = 1e-6


@dataclass(frozen=True)
class Equivalence:
    """How far the outputs were apart.

    ``max_abs`` is over all outputs, ``max_rel`` relative to the largest value of each output. ``inputs`` says
    on what: real samples or random numbers. ``note`` is set when the comparison was not possible, or when
    an output is so sensitive to rounding that its difference was judged by the model's own noise.
    """

    max_abs: float
    max_rel: float
    inputs: Literal["real", "random"]
    note: str | None = None


def check_equivalent(
    original: Model,
    normalized: Model,
    batches: Iterable[Batch] | None,
    progress: Progress | None = None,
) -> Equivalence:
    """Run both models on the same inputs and compare all outputs.

    Both run with ONNX Runtime's default optimizations, as users run them; in the original that also covers
    for old operators without a plain kernel. Up to four batches are used, or without them seeded random
    inputs, whose free dimensions are enlarged until the model takes them.

    Raises:
        ModelError: an output differs by more than float rounding, or a model cannot be loaded or run.
    """
    with (
        (progress or SilentProgress()).task("Comparing with the original") as step,
        _sessions(original, normalized) as (first, second),
    ):
        comparison = _Comparison(original.outputs, first, second)
        if batches is None:
            note = comparison.on_random(original.inputs)
            step(1)
            return comparison.result("random", note)
        names = {spec.name for spec in original.inputs}
        for batch in islice(batches, _MAX_BATCHES):
            comparison.on({name: batch.inputs[name] for name in batch.inputs if name in names})
            step(1)
        return comparison.result("real", None)


class _Comparison:
    """Runs both models on one feed after the other and keeps the worst differences."""

    def __init__(self, outputs: list[TensorSpec], first: Any, second: Any) -> None:
        self._names = [spec.name for spec in outputs]
        self._first, self._second = first, second
        self._worst: list[Difference] = []
        self._sensitive: set[str] = set()

    def on_random(self, specs: list[TensorSpec]) -> str | None:
        """Compare on random inputs; the reason when the original takes none."""
        reason = ""
        for size in _SIZES:
            sizes = _sizes(specs, size)
            if size is not None and _values(specs, sizes) > _MOST_VALUES:
                break
            try:
                feed = random_inputs(specs, seed=_SEED, batch=_BATCH, dims=sizes)
                wanted = self._first.run(None, feed)
            except DataError as error:
                return f"Not compared: {error}"
            except RUNTIME_ERRORS as error:
                reason = reason or _plain(error)
                continue
            self._compare(feed, wanted)
            return None
        return f"Not compared: the model does not accept random inputs ({reason})."

    def on(self, feed: Arrays) -> None:
        """Compare on one feed."""
        try:
            wanted = self._first.run(None, dict(feed))
        except RUNTIME_ERRORS as error:
            raise ModelError(f"The model cannot be run on the given data: {_plain(error)}.") from error
        self._compare(feed, wanted)

    def _compare(self, feed: Arrays, wanted: list[Array]) -> None:
        try:
            got = self._second.run(None, dict(feed))
        except RUNTIME_ERRORS as error:
            raise ModelError(f"The normalized model cannot be run: {_plain(error)}.") from error
        found = [difference(a, b) for a, b in zip(wanted, got, strict=True)]
        doubtful = [i for i, d in enumerate(found) if not d.is_rounding]
        if doubtful:
            self._judge_by_noise(feed, wanted, found, doubtful)
        self._worst += found

    def _judge_by_noise(
        self, feed: Arrays, wanted: list[Array], found: list[Difference], doubtful: list[int]
    ) -> None:
        """Allow what the original itself does when its inputs change in their last bits."""
        noisy = self._first.run(None, _nudged(feed))
        for index in doubtful:
            noise = difference(wanted[index], noisy[index])
            if found[index].explained_by(noise):
                self._sensitive.add(self._names[index])
                continue
            raise ModelError(
                f"Normalizing changed output {self._names[index]!r}: {found[index].describe()}.",
                fix="This is a defect of normalization: please report the model.",
            )

    def result(self, inputs: Literal["real", "random"], note: str | None) -> Equivalence:
        if self._sensitive and note is None:
            listed = ", ".join(sorted(self._sensitive))
            note = f"Rounding changes these outputs as much as the difference found: {listed}."
        absolute = max((d.absolute for d in self._worst), default=0.0)
        relative = max((d.relative for d in self._worst), default=0.0)
        return Equivalence(absolute, relative, inputs, note)


def _sizes(specs: list[TensorSpec], size: int | None) -> Mapping[str, int]:
    """Named dimensions behind the first, all of ``size``."""
    if size is None:
        return {}
    names = [d for spec in specs for d in (spec.shape or ())[1:] if isinstance(d, str)]
    first = {spec.shape[0] for spec in specs if spec.shape}
    return {name: size for name in names if name not in first}


def _values(specs: list[TensorSpec], sizes: Mapping[str, int]) -> int:
    """How many values random inputs of these sizes have."""
    return sum(
        prod(dimension(index, dim, _BATCH, sizes) for index, dim in enumerate(spec.shape or ()))
        for spec in specs
    )


def _nudged(feed: Arrays) -> dict[str, Array]:
    """Floating-point inputs changed by about a float32 rounding error."""
    rng = np.random.default_rng(_SEED)
    return {
        name: (a * (1 + _NUDGE * rng.uniform(-1, 1, a.shape))).astype(a.dtype) if a.dtype.kind == "f" else a
        for name, a in feed.items()
    }


@contextmanager
def _sessions(original: Model, normalized: Model) -> Iterator[tuple[Any, Any]]:
    original = original.clone()
    UniqueNamesPass()(original.ir)  # ONNX Runtime refuses equal node names, which old exporters wrote.
    with tempfile.TemporaryDirectory(prefix="edgeq-") as folder:
        yield (
            _session(original, Path(folder) / "original.onnx", "The model"),
            _session(normalized, Path(folder) / "normalized.onnx", "The normalized model"),
        )


def _session(model: Model, path: Path, what: str) -> Any:
    save(model, path)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except RUNTIME_ERRORS as error:
        raise ModelError(f"{what} cannot be loaded by ONNX Runtime: {_plain(error)}.") from error


def _plain(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


__all__ = [
    "ABSOLUTE_TOLERANCE",
    "NOISE_FACTOR",
    "RELATIVE_TOLERANCE",
    "Equivalence",
    "check_equivalent",
]
