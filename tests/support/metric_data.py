"""Batches and sources made of arrays, for the tests of metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeq.benchmarks.metrics import Accumulator, get_metric
from edgeq.calibration.data import DataOptions, open_data
from edgeq.calibration.types import Array, Batch, DataSource, TensorSpec


def batch(size: int, labels: Sequence[Any] | Array | None = None, **inputs: Array) -> Batch:
    return Batch(dict(inputs), None if labels is None else np.asarray(labels), size)


def output(shape: Sequence[int | str | None], name: str = "out") -> TensorSpec:
    return TensorSpec(name, np.dtype(np.float32), tuple(shape))


def source(labels: Array | None = None, task: Any = None) -> DataSource:
    arrays = {"x": np.zeros((3, 2), np.float32)}
    if labels is not None:
        arrays["label"] = labels
    spec = TensorSpec("x", np.dtype(np.float32), ("N", 2))
    return open_data(arrays, [spec], options=DataOptions(task=task))


def value(name: str, out: Array, labels: Sequence[int] | Array, parts: int = 1) -> float:
    """A metric's value, given in ``parts`` batches."""
    accumulator = Accumulator(get_metric(name))
    truth = np.asarray(labels)
    for rows in np.array_split(np.arange(len(out)), parts):
        accumulator.update({"out": out[rows]}, batch(len(rows), truth[rows]))
    return accumulator.value()


def fidelity(name: str, ours: Array, theirs: Array) -> float:
    """A metric of the artefact's output against the baseline's."""
    accumulator = Accumulator(get_metric(name))
    accumulator.update({"out": ours}, batch(len(ours)), {"out": theirs})
    return accumulator.value()
