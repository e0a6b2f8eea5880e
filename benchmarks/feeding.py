"""Feeding samples to models, also to those that take a fixed number of them at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from edgeq.benchmarks.options import BenchOptions
from edgeq.calibration.random_inputs import random_inputs
from edgeq.calibration.types import Array, Arrays, Batch, DataSource, TensorSpec
from edgeq.errors import DataError, UsageError
from edgeq.targets.base import Runner

# Of one model's outputs at a time.
OUTPUT_BYTES = 500_000_000


def fixed_batch(specs: Sequence[TensorSpec]) -> int | None:
    """How many samples a model takes at a time; None where that is free.

    1 where the inputs' first dimensions disagree: then samples cannot be put together along them.
    """
    firsts = {spec.shape[0] for spec in specs if spec.shape}
    fixed = [first for first in firsts if isinstance(first, int)]
    if not fixed:
        return None
    return fixed[0] if len(firsts) == 1 else 1


def batch_size(runners: Sequence[Runner], asked: int) -> int:
    """The number of samples per inference that all runners take, ``asked`` where it is free.

    Raises:
        UsageError: they want different numbers.
    """
    wanted = {fixed for runner in runners if (fixed := fixed_batch(runner.inputs)) is not None}
    if len(wanted) > 1:
        raise UsageError(
            f"The artefact and the baseline have different fixed batches: {sorted(wanted)}.",
            fix="Compare models of the same batch, or export with a dynamic one.",
        )
    return wanted.pop() if wanted else asked


def bounded_batch(runners: Sequence[Runner], asked: int, sample: Batch) -> int:
    """:func:`batch_size`, and no more than keeps each runner's outputs within :data:`OUTPUT_BYTES`.

    The logits of a language model are tokens x vocabulary for every ``sample``.
    """
    size = batch_size(runners, asked)
    if any(fixed_batch(runner.inputs) is not None for runner in runners):
        return size
    largest = max(_output_bytes(runner, sample) for runner in runners)
    return max(1, min(size, OUTPUT_BYTES // max(largest, 1)))


def _output_bytes(runner: Runner, sample: Batch) -> int:
    """Bytes of the outputs for one sample; a dimension counts 1 where its size is not known beforehand."""
    sizes = {
        name: size
        for spec in runner.inputs
        for name, size in zip(spec.shape or (), sample.inputs[spec.name].shape, strict=False)
        if isinstance(name, str)
    }
    total = 0
    for spec in runner.outputs:
        shape = [sizes.get(size, 1) if isinstance(size, str) else size or 1 for size in spec.shape or ()]
        total += prod(shape[1:]) * spec.dtype.itemsize
    return total


def padded(batch: Batch, size: int) -> dict[str, Array]:
    """The inputs of a batch with its samples repeated until there are ``size``."""
    if batch.size >= size:
        return dict(batch.inputs)
    rows = np.arange(size) % batch.size
    return {name: array[rows] for name, array in batch.inputs.items()}


def without_padding(outputs: Arrays, batch: Batch, size: int) -> dict[str, Array]:
    """The outputs for the batch's own samples.

    An output without an axis of ``size`` samples (a state, a scalar) is left out: rows that belong to the
    padding cannot be told from others there.
    """
    if batch.size >= size:
        return dict(outputs)
    return {name: array[: batch.size] for name, array in outputs.items() if array.shape[:1] == (size,)}


@dataclass(frozen=True)
class Feeds:
    """Inputs of single inferences, and in words where they came from."""

    inputs: list[dict[str, Array]]
    origin: str
    batch: int


def latency_feeds(runners: Sequence[Runner], source: DataSource | None, options: BenchOptions) -> Feeds:
    """Real samples where there is data, else random values of the declared shapes, which ``origin`` says.

    Raises:
        DataError: the data is empty, or no random values can be made for an input.
    """
    size = batch_size(runners, options.batch_size)
    if source is None:
        inputs = random_inputs(runners[0].inputs, seed=options.seed, batch=size)
        return Feeds([inputs], "random values of the declared shapes", size)
    found = [padded(batch, size) for batch in source.batches(size, options.latency_samples * size)]
    if not found:
        raise DataError("The evaluation data is empty.", fix="Give at least one sample.")
    plural = "s" if len(found) > 1 else ""
    return Feeds(found, f"{len(found)} real input{plural} of the evaluation data", size)
