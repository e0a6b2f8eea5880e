"""What is kept of each batch: sketches, further observers, and the search for NaN and infinite values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from edgeq.calibration.kernels import choose_kernel
from edgeq.calibration.sketch import Sketch
from edgeq.calibration.types import Array
from edgeq.errors import DataError


class Observer(Protocol):
    """Collects something else in the same pass, for example statistics per channel."""

    @property
    def tensors(self) -> Sequence[str]:
        """The tensors that it wants to see."""
        ...

    def observe(self, name: str, array: Array) -> None:
        """Take one batch of a tensor: the runtime's own array, valid during the call, not to be changed.

        Calls come from one thread, in the order of the data; tensors that do not depend on the inputs come
        only with the first batch.
        """
        ...


class Tally:
    """Sketches of ``sketched`` tensors and everything that ``observers`` want, fed batch by batch."""

    def __init__(
        self, sketched: Sequence[str], observers: Sequence[Observer], refuse_non_finite: bool
    ) -> None:
        self.sketches = {name: Sketch() for name in sketched}
        self._observers: dict[str, list[Observer]] = {}
        for observer in observers:
            for name in observer.tensors:
                self._observers.setdefault(name, []).append(observer)
        self._refuse = refuse_non_finite

    def take(self, arrays: Mapping[str, Array], first: int, size: int, expected_batches: int | None) -> None:
        """Count one batch: samples ``first`` to ``first + size - 1``.

        Raises:
            DataError: a tensor holds NaN or infinite values, and they are refused.
        """
        values = sum(array.size for array in arrays.values())
        kernel = choose_kernel(None if expected_batches is None else values * expected_batches)
        for name, array in arrays.items():
            if name in self.sketches:
                before = self.sketches[name].non_finite
                self.sketches[name].update(array, kernel=kernel)
                if self._refuse and self.sketches[name].non_finite > before:
                    raise _non_finite_error(name, array, first, size)
            for observer in self._observers.get(name, ()):
                observer.observe(name, array)


def _non_finite_error(name: str, array: Array, first: int, size: int) -> DataError:
    kind = "NaN" if np.isnan(array).any() else "infinite"
    return DataError(
        f"Tensor {name!r} has {kind} values for {_culprit(array, first, size)}.",
        fix="Check that sample and the preprocessing, or leave the nodes around the tensor in float.",
    )


def _culprit(array: Array, first: int, size: int) -> str:
    if size == 1:
        return f"sample {first}"
    if array.ndim == 0 or array.shape[0] < size:
        return f"one of the samples {first} to {first + size - 1}"
    finite = np.isfinite(array.reshape(array.shape[0], -1)).all(axis=1)
    return f"sample {first + min(int(np.argmin(finite)), size - 1)}"
