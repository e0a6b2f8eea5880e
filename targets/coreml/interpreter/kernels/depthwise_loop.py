"""The compiled loops of depthwise convolution. Importing this imports numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import float32, int64, njit, types

_F = TypeVar("_F", bound=Callable[..., Any])
# Elements of one pass over all taps: they stay in the first-level cache.
_PASS = 2048


def _inlined(function: _F) -> _F:
    # in one function with the buffers, the compiler sees that no two arrays overlap, and vectorizes
    return cast(_F, njit(inline="always")(function))


def _compiled(signature: Any) -> Callable[[_F], _F]:
    return cast(Callable[[_F], _F], njit(signature, cache=True))


@_inlined
def _spread(image: Any, rows: Any, columns: Any, plane: Any) -> None:
    # neighbours lie side by side with stride 1, or all of them where a phase has one element
    contiguous = columns.shape[0] == 1 or columns[1] - columns[0] == 1
    for i in range(image.shape[0]):
        line = image[i]
        if contiguous:
            start = rows[i] + columns[0]
            plane[start : start + line.shape[0]] = line
        else:
            for j in range(line.shape[0]):
                plane[rows[i] + columns[j]] = line[j]


@_inlined
def _add_taps(plane: Any, starts: Any, taps: Any, total: Any) -> None:
    """Four products are added before they join the sum, then two, then one.

    A sum is read and written once for them, and it is the order of ONNX Runtime's products of one row (MLAS,
    ``SgemmKernelM1``), which is how it computes depthwise convolutions.
    """
    fours = starts.shape[0] // 4 * 4
    twos = fours + (starts.shape[0] - fours) // 2 * 2
    for begin in range(0, total.shape[0], _PASS):
        end = min(begin + _PASS, total.shape[0])
        part = total[begin:end]
        part[:] = 0.0
        for tap in range(0, fours, 4):
            wa, wb, wc, wd = taps[tap], taps[tap + 1], taps[tap + 2], taps[tap + 3]
            a = plane[begin + starts[tap] : end + starts[tap]]
            b = plane[begin + starts[tap + 1] : end + starts[tap + 1]]
            c = plane[begin + starts[tap + 2] : end + starts[tap + 2]]
            d = plane[begin + starts[tap + 3] : end + starts[tap + 3]]
            for p in range(part.shape[0]):
                part[p] += ((wa * a[p] + wb * b[p]) + wc * c[p]) + wd * d[p]
        for tap in range(fours, twos, 2):
            wa, wb = taps[tap], taps[tap + 1]
            a = plane[begin + starts[tap] : end + starts[tap]]
            b = plane[begin + starts[tap + 1] : end + starts[tap + 1]]
            for p in range(part.shape[0]):
                part[p] += wa * a[p] + wb * b[p]
        for tap in range(twos, starts.shape[0]):
            weight, source = taps[tap], plane[begin + starts[tap] : end + starts[tap]]
            for p in range(part.shape[0]):
                part[p] += weight * source[p]


@_inlined
def _pick(total: Any, picks: Any, bias: Any, lines: Any) -> None:
    for i in range(lines.shape[0]):
        start = picks[i]
        for j in range(lines.shape[1]):
            lines[i, j] = total[start + j] + bias


# Read-only arrays (weights) are taken like others: without this, numba would compile every combination.
_IMAGES = types.Array(float32, 4, "C", readonly=True)
_TAPS = types.Array(float32, 2, "C", readonly=True)
_BIAS = types.Array(float32, 1, "C", readonly=True)
_PLACES = types.Array(int64, 1, "C", readonly=True)
_RESULT = types.Array(float32, 4, "C")


@_compiled(types.void(_IMAGES, _PLACES, _PLACES, int64, _PLACES, _TAPS, _BIAS, _PLACES, _RESULT))
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
