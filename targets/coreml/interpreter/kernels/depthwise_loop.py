"""The compiled loops of depthwise convolution. Importing this imports numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

_F = TypeVar("_F", bound=Callable[..., Any])
# Elements of one pass over all taps: they stay in the first-level cache.
_PASS = 2048


def _compiled(function: _F) -> _F:
    # contract: multiply and add in one rounding, as matrix products do
    return cast(_F, njit(cache=True, fastmath={"contract"})(function))


@_compiled
def depthwise_loop(
    x: Any, rows: Any, columns: Any, size: int, starts: Any, taps: Any, bias: Any, picks: Any, result: Any
) -> None:
    """Fill ``result`` [n, c * m, lines, width].

    ``x`` [n, c, r, w] is laid out in planes of ``size`` elements: (i, j) at ``rows[i] + columns[j]``, zeros
    elsewhere. Tap t of ``taps`` [c * m, t] reads them from ``starts[t]`` on. Line l of the result starts at
    element ``picks[l]`` of the sum.
    """
    each = taps.shape[0] // x.shape[1]
    plane = np.zeros(size, np.float32)
    total = np.empty(picks[-1] + result.shape[3], np.float32)
    for image in range(x.shape[0]):
        for channel in range(x.shape[1]):
            _spread(x[image, channel], rows, columns, plane)
            for filter_ in range(channel * each, (channel + 1) * each):
                _add_taps(plane, starts, taps[filter_], total)
                _pick(total, picks, bias[filter_], result[image, filter_])


@_compiled
def _spread(image: Any, rows: Any, columns: Any, plane: Any) -> None:
    contiguous = columns[-1] - columns[0] == columns.shape[0] - 1
    for i in range(image.shape[0]):
        line = image[i]
        if contiguous:
            start = rows[i] + columns[0]
            plane[start : start + line.shape[0]] = line
        else:
            for j in range(line.shape[0]):
                plane[rows[i] + columns[j]] = line[j]


@_compiled
def _add_taps(plane: Any, starts: Any, taps: Any, total: Any) -> None:
    """Three taps at a time, in order, so that a sum is read and written once for them."""
    triples = starts.shape[0] // 3 * 3
    for begin in range(0, total.shape[0], _PASS):
        end = min(begin + _PASS, total.shape[0])
        part = total[begin:end]
        part[:] = 0.0
        for tap in range(0, triples, 3):
            first, second, third = taps[tap], taps[tap + 1], taps[tap + 2]
            a = plane[begin + starts[tap] : end + starts[tap]]
            b = plane[begin + starts[tap + 1] : end + starts[tap + 1]]
            c = plane[begin + starts[tap + 2] : end + starts[tap + 2]]
            for place in range(part.shape[0]):
                part[place] = third * c[place] + (second * b[place] + (first * a[place] + part[place]))
        for tap in range(triples, starts.shape[0]):
            weight, source = taps[tap], plane[begin + starts[tap] : end + starts[tap]]
            for place in range(part.shape[0]):
                part[place] += weight * source[place]


@_compiled
def _pick(total: Any, picks: Any, bias: Any, lines: Any) -> None:
    for i in range(lines.shape[0]):
        start = picks[i]
        for j in range(lines.shape[1]):
            lines[i, j] = total[start + j] + bias
