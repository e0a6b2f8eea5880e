"""The calibration pass over a prepared graph: one pass, constant memory, a sketch per tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeq.calibration.network import filled_up
from edgeq.calibration.types import Arrays, Batch, DataSource, TensorSpec
from edgeq.errors import DataError
from edgeq.progress import Progress
from edgeq.quiet import reason
from edgeq.targets.neural_compressor.constants import is_constant
from edgeq.targets.neural_compressor.observers import Ranges, activation_observer, is_observer

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule

# Samples at a time where they can be put together: small batches stay in the cache.
_BATCH = 8


@dataclass
class Seen:
    """What a calibration pass has read: how many samples, and the tensors of its first batches."""

    samples: int = 0
    first: list[tuple[torch.Tensor, ...]] = field(default_factory=list)


def observe(prepared: GraphModule) -> list[Ranges]:
    """Put edgeq's observers in place of Neural Compressor's; returns what they fill.

    Observers that were one object (tensors that must have one range) share theirs.
    """
    found: dict[int, Ranges] = {}
    for node in prepared.graph.nodes:
        if not is_observer(node) or is_constant(node.args[0]):
            continue
        before = getattr(prepared, str(node.target))
        ranges = found.setdefault(id(before), Ranges(str(node.args[0].name)))
        # The object stays alive with its ranges: ids are reused otherwise.
        ranges.replaced.append(before)
        setattr(prepared, str(node.target), activation_observer(ranges))
    return list(found.values())


def run_samples(
    prepared: GraphModule,
    inputs: Sequence[TensorSpec],
    source: DataSource,
    samples: int,
    progress: Progress,
    *,
    keep: int = 0,
) -> Seen:
    """Run at most ``samples`` samples through ``prepared``, and keep the batches of the first ``keep``.

    Raises:
        DataError: no data, or the program cannot take it.
    """
    import torch

    seen = Seen()
    total = samples if source.size is None else min(samples, source.size)
    with progress.task("Calibrating", total) as advance, torch.no_grad():
        for batch in source.batches(batch_size(inputs), samples):
            given = tensors(batch.inputs, inputs)
            try:
                prepared(*given)
            except RuntimeError as error:
                raise DataError(
                    f"The program cannot take calibration sample {seen.samples}: {reason(error)}.",
                    fix="Compare names, shapes and types of the data with the model's inputs.",
                ) from error
            if seen.samples < keep:
                seen.first.append(given)
            seen.samples += batch.size
            advance(batch.size)
    if not seen.samples:
        raise DataError("The calibration data is empty.", fix="Give at least one sample.")
    return seen


def some_batches(inputs: Sequence[TensorSpec], source: DataSource, samples: int) -> Iterator[Any]:
    """The tensors of a few batches of ``source``."""
    for batch in source.batches(batch_size(inputs), samples):
        yield tensors(batch.inputs, inputs)


def has_fixed_batch(inputs: Sequence[TensorSpec]) -> bool:
    """Whether the program takes one number of samples at a time only."""
    return any(spec.fixed_batch is not None for spec in inputs)


def batch_size(inputs: Sequence[TensorSpec]) -> int:
    """The fixed batch; 1 where samples may differ in size (padding would be counted); else a few."""
    fixed = {spec.fixed_batch for spec in inputs}
    if len(fixed) == 1 and None not in fixed:
        return int(fixed.pop() or 1)
    free = any(not isinstance(size, int) for spec in inputs for size in (spec.shape or ())[1:])
    return 1 if free or fixed != {None} else _BATCH


def tensors(arrays: Arrays, inputs: Sequence[TensorSpec]) -> tuple[torch.Tensor, ...]:
    """``arrays`` in the order of the inputs, samples repeated where their number is fixed.

    Raises:
        DataError: there is none for an input.
    """
    import torch

    missing = [spec.name for spec in inputs if spec.name not in arrays]
    if missing:
        raise DataError(
            f"The data has no array for input {missing[0]!r}.",
            fix=f"It has: {', '.join(map(repr, arrays)) or 'none'}. The names must be the model's.",
        )
    size = next((len(arrays[spec.name]) for spec in inputs if np.ndim(arrays[spec.name])), 1)
    fixed = next((spec.fixed_batch for spec in inputs if spec.fixed_batch is not None), None)
    if fixed is not None and fixed > size:
        arrays = filled_up(Batch(dict(arrays), None, size), fixed).inputs
    return tuple(torch.from_numpy(np.array(arrays[spec.name], order="C")) for spec in inputs)
