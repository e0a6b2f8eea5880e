"""The instrumented session: runs batches and gives back the fetched tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
import onnxruntime as ort

from edgeq.calibration.runtime import RUNTIME_ERRORS, one_sentence
from edgeq.calibration.types import Array, Batch
from edgeq.errors import DataError, ModelError


class Network:
    """A model in ONNX Runtime whose inner tensors can be read. It may run in several threads at once."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._inputs = tuple(i.name for i in session.get_inputs())

    @property
    def fixed_batch(self) -> int | None:
        """The number of samples that the model takes at a time; None where that is free.

        1 where the inputs disagree: then samples cannot be put together along the first axis.
        """
        firsts = {i.shape[0] for i in self._session.get_inputs() if i.shape}
        fixed = {n for n in firsts if isinstance(n, int)}
        if not fixed:
            return None
        return int(fixed.pop()) if len(firsts) == 1 else 1

    @property
    def free_sizes(self) -> bool:
        """Whether samples may differ in size: put together, they would be padded, and padding be counted."""
        return any(not isinstance(n, int) for i in self._session.get_inputs() for n in i.shape[1:])

    def run(self, batch: Batch, tensors: Iterable[str], first: int) -> dict[str, Array]:
        """The arrays of ``tensors`` for a batch whose first sample is number ``first``.

        Raises:
            DataError: the model cannot take the batch.
            ModelError: a tensor is a sequence, a map or sparse.
        """
        tensors = tuple(tensors)
        given = {name: np.asarray(batch.inputs[name]) for name in tensors if name in batch.inputs}
        computed = [name for name in tensors if name not in given]
        given.update(zip(computed, self._outputs(batch, computed, first), strict=True))
        return {name: given[name] for name in tensors}

    def _outputs(self, batch: Batch, names: Sequence[str], first: int) -> Sequence[Array]:
        missing = [name for name in self._inputs if name not in batch.inputs]
        if missing:
            raise DataError(
                f"The calibration data has no array for input {missing[0]!r}.",
                fix=f"It has: {', '.join(map(repr, batch.inputs)) or 'none'}. The names must be the model's.",
            )
        if not names:
            return []
        try:
            outputs = self._session.run(list(names), batch.inputs)
        except RUNTIME_ERRORS as error:
            raise DataError(
                f"The model cannot take {samples(first, batch.size)}: {one_sentence(error)}",
                fix="Compare names, shapes and types of the data with the model's inputs.",
            ) from error
        for name, output in zip(names, outputs, strict=True):
            if not isinstance(output, np.ndarray):
                raise ModelError(f"Tensor {name!r} is no dense tensor and cannot be calibrated.")
        return cast(Sequence[Array], outputs)


def filled_up(batch: Batch, size: int) -> Batch:
    """The batch with its samples repeated until there are ``size``, for a model with a fixed batch."""
    index = np.arange(size) % batch.size
    inputs = {
        name: array[index] if array.ndim and array.shape[0] == batch.size else array
        for name, array in batch.inputs.items()
    }
    return Batch(inputs, labels=None, size=size)


def samples(first: int, size: int) -> str:
    """``calibration sample 3`` or ``calibration samples 3 to 6``."""
    return (
        f"calibration sample {first}" if size == 1 else f"calibration samples {first} to {first + size - 1}"
    )
