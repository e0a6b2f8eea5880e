"""What is kept of each batch: sketches, further observers, and the search for NaN and infinite values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from threading import Lock
from typing import Protocol

import numpy as np

from edgeq.calibration.kernels import Kernel
from edgeq.calibration.sketch import Sketch
from edgeq.calibration.types import Array
from edgeq.errors import DataError


class Observer(Protocol):
    """Collects something else in the same pass, for example statistics per channel."""

    @property
    def tensors(self) -> Collection[str]:
        """The tensors that it wants to see."""
        ...

    def observe(self, name: str, array: Array) -> None:
        """Take one batch of a tensor: the runtime's own array, not to be changed, valid during the call.

        Calls come from one thread, in the order of the data. Tensors that do not depend on the inputs come
        once, before all others.
        """
        ...


class Tally:
    """Sketches of some tensors and everything that ``observers`` want."""

    def __init__(
        self, sketched: Sequence[str], observers: Sequence[Observer], refuse_non_finite: bool
    ) -> None:
        self.sketches = {name: Sketch() for name in sketched}
        self._locks = {name: Lock() for name in sketched}
        self._observers: dict[str, list[Observer]] = {}
        for observer in observers:
            for name in observer.tensors:
                self._observers.setdefault(name, []).append(observer)
        self._refuse = refuse_non_finite

    def count(self, arrays: Mapping[str, Array], first: int, size: int, kernel: Kernel) -> None:
        """Add a batch (samples ``first`` to ``first + size - 1``) to the sketches; any thread, any order.

        Raises:
            DataError: a tensor holds NaN or infinite values, and they are refused.
        """
        for name, array in arrays.items():
            if name not in self.sketches:
                continue
            with self._locks[name]:
                before = self.sketches[name].non_finite
                self.sketches[name].update(array, kernel=kernel)
                found = self.sketches[name].non_finite > before
            if found and self._refuse:
                raise _non_finite_error(name, array, first, size)

    @property
    def has_observers(self) -> bool:
        """Whether :meth:`observe` does anything."""
        return bool(self._observers)

    def observe(self, arrays: Mapping[str, Array]) -> None:
        """Show a batch to the observers; one thread, in the order of the data."""
        for name, array in arrays.items():
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
        return f"calibration sample {first}"
    if array.ndim == 0 or array.shape[0] != size:
        return f"one of the calibration samples {first} to {first + size - 1}"
    finite = np.isfinite(array.reshape(size, -1)).all(axis=1)
    return f"calibration sample {first + int(np.argmin(finite))}"
