"""The instrumented session: runs batches and gives back the fetched tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import onnxruntime as ort

from edgeq.calibration.instrument import Fetches
from edgeq.calibration.runtime import RUNTIME_ERRORS, one_sentence
from edgeq.calibration.types import Array, Batch
from edgeq.errors import DataError, ModelError

# All fetched tensors of a batch together. Two batches are held: one in inference, one being counted.
BATCH_BYTES = 32 << 20
_LARGEST_BATCH = 32


class Network:
    """A model in ONNX Runtime whose inner tensors can be read."""

    def __init__(self, session: ort.InferenceSession, fetches: Fetches) -> None:
        self._session = session
        self._fetches = fetches
        self._constants_seen = False

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

    def fitting_batch(self, sample: Batch) -> int:
        """How many samples keep a batch within ``BATCH_BYTES``, measured with one."""
        nbytes = sum(array.nbytes for array in self._fetch(sample, first=0).values())
        return max(1, min(_LARGEST_BATCH, BATCH_BYTES // max(nbytes, 1)))

    def run(self, batch: Batch, first: int) -> dict[str, Array]:
        """The fetched tensors of a batch, in the order of computation. Constants come with the first only.

        Raises:
            DataError: the model cannot take the batch (``first`` is the index of its first sample).
        """
        arrays = self._fetch(batch, first)
        if self._constants_seen:
            return arrays
        self._constants_seen = True
        constants = self._fetches.once
        varying = tuple(name for name in self._fetches.from_session if name not in constants)
        self._fetches = replace(self._fetches, from_session=varying)
        return arrays

    def _fetch(self, batch: Batch, first: int) -> dict[str, Array]:
        missing = [name for name in self._fetches.from_inputs if name not in batch.inputs]
        if missing:
            raise DataError(f"The calibration data has no array for input {missing[0]!r}.", fix="Add it.")
        arrays = {name: np.asarray(batch.inputs[name]) for name in self._fetches.from_inputs}
        arrays.update(zip(self._fetches.from_session, self._outputs(batch, first), strict=True))
        return arrays

    def _outputs(self, batch: Batch, first: int) -> Sequence[Array]:
        names = self._fetches.from_session
        if not names:
            return []
        try:
            outputs = self._session.run(list(names), batch.inputs)
        except RUNTIME_ERRORS as error:
            raise DataError(
                f"The model cannot take {described(first, batch.size)}: {one_sentence(error)}",
                fix="Check names, shapes and types of the data against the model's inputs.",
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


def described(first: int, size: int) -> str:
    """``sample 3`` or ``samples 3 to 6``."""
    return f"sample {first}" if size == 1 else f"samples {first} to {first + size - 1}"
