"""What a linear layer's inputs look like, as sums: shards of the calibration data add up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.compiler.weights.sampling import RowSample
from edgeq.compiler.weights.spec import Floats

# Rows of a Hessian that are computed at a time; the part below them is the same as that beside them.
_BAND = 1024


@dataclass
class InputStatistics:
    """Sums over ``tokens`` inputs x of K channels.

    ``hessian`` float32 [K, K] is the sum of x xᵀ (of the squared error's Hessian, without the factor 2);
    ``absolute`` and ``largest`` float32 [K] are the sum and the maximum of abs(x). ``hessian`` None: only
    the diagonal was asked for, which is ``squares`` float32 [K] in any case. ``sample``: some of the inputs.
    """

    tokens: int
    squares: Floats
    absolute: Floats
    largest: Floats
    hessian: Floats | None
    sample: RowSample | None = None

    @classmethod
    def empty(cls, inputs: int, *, hessian: bool, sampled: int = 0) -> InputStatistics:
        """Of no inputs; ``sampled`` of them are to be kept."""
        zeros = np.zeros(inputs, np.float32)
        full = np.zeros((inputs, inputs), np.float32) if hessian else None
        sample = RowSample.empty(inputs, sampled) if sampled else None
        return cls(0, zeros, zeros.copy(), zeros.copy(), full, sample)

    def update(self, x: npt.NDArray[np.float32]) -> None:
        """Add float32 inputs [tokens, K]."""
        self.tokens += len(x)
        size = np.abs(x)
        self.absolute += size.sum(axis=0)
        np.maximum(self.largest, size.max(axis=0, initial=0.0), out=self.largest)
        self.squares += np.einsum("tk,tk->k", x, x)
        if self.hessian is not None:
            _add_products(self.hessian, x)
        if self.sample is not None:
            self.sample.update(x)

    def merge(self, other: InputStatistics) -> None:
        """Add the inputs that ``other`` has seen."""
        self.tokens += other.tokens
        self.absolute += other.absolute
        self.squares += other.squares
        np.maximum(self.largest, other.largest, out=self.largest)
        if self.hessian is not None and other.hessian is not None:
            self.hessian += other.hessian
        if self.sample is not None and other.sample is not None:
            self.sample.merge(other.sample)


def _add_products(hessian: Floats, x: Floats) -> None:
    """Add x xᵀ of all rows; a whole product of the Hessian's size is never in memory beside it."""
    inputs = len(hessian)
    for start in range(0, inputs, _BAND):
        stop = min(start + _BAND, inputs)
        hessian[start:stop, start:] += x[:, start:stop].T @ x[:, start:]
        hessian[stop:, start:stop] = hessian[start:stop, stop:].T
