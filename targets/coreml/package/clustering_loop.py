"""The compiled loop of exact one-dimensional k-means. Importing this imports numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

_F = TypeVar("_F", bound=Callable[..., object])


def _compiled(function: _F) -> _F:
    return cast(_F, njit(cache=True)(function))


@_compiled
def cluster_ends(
    counts: npt.NDArray[np.float64],
    sums: npt.NDArray[np.float64],
    squares: npt.NDArray[np.float64],
    clusters: int,
) -> npt.NDArray[np.int64]:
    """Where each cluster of ascending values ends, for the least squared error.

    ``counts``, ``sums`` and ``squares`` are running totals of how often values occur, of the values and of
    their squares, starting with 0. Dynamic programming over the number of clusters; since the best start of
    the last cluster moves right with its end, each step divides and conquers: O(clusters * n * log n).
    """
    size = counts.size - 1
    before = np.zeros(size + 1)
    for end in range(1, size + 1):
        before[end] = squares[end] - sums[end] * sums[end] / counts[end]
    cost = np.zeros(size + 1)
    starts = np.zeros((clusters, size + 1), np.int32)
    stack = np.empty((128, 4), np.int64)
    for cluster in range(1, clusters):
        stack[0] = (1, size, 0, size - 1)
        height = 1
        while height:
            height -= 1
            low, high, first, last = stack[height]
            if low > high:
                continue
            end = (low + high) // 2
            best, start = np.inf, first
            for i in range(first, min(end - 1, last) + 1):
                total = sums[end] - sums[i]
                error = before[i] + squares[end] - squares[i] - total * total / (counts[end] - counts[i])
                if error < best:
                    best, start = error, i
            cost[end], starts[cluster, end] = best, start
            stack[height] = (low, end - 1, first, start)
            stack[height + 1] = (end + 1, high, start, last)
            height += 2
        before, cost = cost, before
    ends = np.empty(clusters, np.int64)
    ends[clusters - 1] = size
    for cluster in range(clusters - 1, 0, -1):
        ends[cluster - 1] = starts[cluster, ends[cluster]]
    return ends
