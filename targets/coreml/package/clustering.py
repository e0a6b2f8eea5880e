"""The best palette of a tensor: exact k-means in one dimension over the float16 numbers that occur."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.calibration.types import Array
from edgeq.targets.coreml.toolkit import coremltools

_CODES = 1 << 16


@dataclass(frozen=True)
class Palette:
    """``table``: ascending float16 numbers, ``2 ** bits`` of them; ``indices``: uint8, the tensor's shape."""

    table: npt.NDArray[np.float16]
    indices: npt.NDArray[np.uint8]

    def decoded(self) -> npt.NDArray[np.float16]:
        """The tensor that the palette stands for."""
        return self.table[self.indices]


def find_palette(weights: npt.NDArray[np.float16], bits: int) -> Palette:
    """The palette of ``2 ** bits`` entries with the least squared error.

    Rounded to float16, a tensor has at most 65536 different numbers, so the exact optimum by dynamic
    programming (Wu 1991; Grønlund et al. 2017, arXiv:1701.07204, as in coremltools' kmeans1d) takes less time
    than k-means from random starts. A tensor that is already made of so few numbers keeps them, so the
    palette of a decoded palette is the same palette.
    """
    codes = np.ascontiguousarray(weights).view(np.uint16)
    present = np.bincount(codes.reshape(-1), minlength=_CODES)
    occurring = np.flatnonzero(present).astype(np.uint16)
    values = occurring.view(np.float16).astype(np.float64)
    table = _table(values, present[occurring], 1 << bits)
    nearest = np.zeros(_CODES, np.uint8)
    nearest[occurring] = _nearest(values, table)
    return Palette(table, nearest[codes])


def _table(values: Array, counts: Array, entries: int) -> npt.NDArray[np.float16]:
    """Ascending centroids, the largest repeated when there are fewer different numbers than entries."""
    centroids = values if values.size <= entries else _centroids(values, counts, entries)
    found = np.unique(centroids.astype(np.float16))
    return np.concatenate([found, np.full(entries - found.size, found[-1])])


def _centroids(values: Array, counts: Array, entries: int) -> Array:
    coremltools()
    from coremltools._deps import kmeans1d

    found: Any = kmeans1d.cluster(values.tolist(), entries, weights=counts.tolist())
    return np.array(found.centroids)


def _nearest(values: Array, table: npt.NDArray[np.float16]) -> Array:
    exact = table.astype(np.float64)
    return np.searchsorted((exact[1:] + exact[:-1]) / 2, values)
