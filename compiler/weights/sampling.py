"""A few of all inputs, the same ones however the data is cut: those of shards merge into those of all."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.compiler.weights.spec import Floats


@dataclass
class RowSample:
    """The ``limit`` inputs whose hashes are lowest, in their order; inputs that are the same count once.

    ``hashes`` uint64 [n], ``rows`` float32 [n, K].
    """

    limit: int
    hashes: npt.NDArray[np.uint64]
    rows: Floats

    @classmethod
    def empty(cls, inputs: int, limit: int) -> RowSample:
        """Of no inputs."""
        return cls(limit, np.empty(0, np.uint64), np.empty((0, inputs), np.float32))

    def update(self, x: Floats) -> None:
        """Look at float32 inputs [tokens, K]."""
        hashes = _hashes(x)
        if len(self.hashes) == self.limit:
            low = hashes < self.hashes[-1]
            hashes, x = hashes[low], x[low]
        self._take(hashes, x)

    def merge(self, other: RowSample) -> None:
        """Look at the inputs that ``other`` has kept."""
        self._take(other.hashes, other.rows)

    def _take(self, hashes: npt.NDArray[np.uint64], rows: Floats) -> None:
        every, first = np.unique(np.concatenate([self.hashes, hashes]), return_index=True)
        kept = first[: self.limit]
        self.hashes, self.rows = every[: self.limit], np.concatenate([self.rows, rows])[kept]


def _hashes(x: Floats) -> npt.NDArray[np.uint64]:
    """uint64 [tokens]: sums of random multiples of the bits, of which the upper half is as good as random."""
    factors = np.frombuffer(hashlib.shake_128(b"inputs").digest(8 * x.shape[1]), np.uint64)
    bits = np.ascontiguousarray(x).view(np.uint32)
    return np.asarray(np.einsum("tk,k->t", bits, factors, dtype=np.uint64, casting="safe"))
