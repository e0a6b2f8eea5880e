"""The compiled matrix product that adds in a fixed order. Importing this imports numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import float32, int64, njit, types

_F = TypeVar("_F", bound=Callable[..., Any])
# Columns of one pass: four rows of sums stay in the first-level cache.
_PASS = 256


# contract: multiply and add in one rounding
_CONTRACT = {"contract"}


def _inlined(function: _F) -> _F:
    # in one function with the buffer, the compiler sees that no two arrays overlap, and vectorizes
    return cast(_F, njit(fastmath=_CONTRACT, inline="always")(function))


def _compiled(signature: Any) -> Callable[[_F], _F]:
    return cast(Callable[[_F], _F], njit(signature, cache=True, fastmath=_CONTRACT))


@_inlined
def _four_rows(a: Any, b: Any, first: int, last: int, begin: int, sums: Any) -> None:
    """Set ``sums`` [4, w] to a[:, first:last] @ b[first:last, begin:…], four products per read and write."""
    width = sums.shape[1]
    row0, row1, row2, row3 = sums[0], sums[1], sums[2], sums[3]
    row0[:], row1[:], row2[:], row3[:] = 0.0, 0.0, 0.0, 0.0
    whole = first + (last - first) // 4 * 4
    for k in range(first, whole, 4):
        b0, b1 = b[k, begin : begin + width], b[k + 1, begin : begin + width]
        b2, b3 = b[k + 2, begin : begin + width], b[k + 3, begin : begin + width]
        a00, a01, a02, a03 = a[0, k], a[0, k + 1], a[0, k + 2], a[0, k + 3]
        a10, a11, a12, a13 = a[1, k], a[1, k + 1], a[1, k + 2], a[1, k + 3]
        a20, a21, a22, a23 = a[2, k], a[2, k + 1], a[2, k + 2], a[2, k + 3]
        a30, a31, a32, a33 = a[3, k], a[3, k + 1], a[3, k + 2], a[3, k + 3]
        for p in range(width):
            x0, x1, x2, x3 = b0[p], b1[p], b2[p], b3[p]
            row0[p] = a03 * x3 + (a02 * x2 + (a01 * x1 + (a00 * x0 + row0[p])))
            row1[p] = a13 * x3 + (a12 * x2 + (a11 * x1 + (a10 * x0 + row1[p])))
            row2[p] = a23 * x3 + (a22 * x2 + (a21 * x1 + (a20 * x0 + row2[p])))
            row3[p] = a33 * x3 + (a32 * x2 + (a31 * x1 + (a30 * x0 + row3[p])))
    for k in range(whole, last):
        line = b[k, begin : begin + width]
        c0, c1, c2, c3 = a[0, k], a[1, k], a[2, k], a[3, k]
        for p in range(width):
            x = line[p]
            row0[p] += c0 * x
            row1[p] += c1 * x
            row2[p] += c2 * x
            row3[p] += c3 * x


@_inlined
def _one_row(a: Any, b: Any, first: int, last: int, begin: int, sums: Any) -> None:
    sums[:] = 0.0
    for k in range(first, last):
        factor, line = a[k], b[k, begin : begin + sums.shape[0]]
        for p in range(sums.shape[0]):
            sums[p] += factor * line[p]


@_inlined
def _give(sums: Any, fresh: bool, result: Any) -> None:
    if fresh:
        result[:] = sums
    else:
        for p in range(result.shape[0]):
            result[p] += sums[p]


# Read-only arrays (weights) are taken like others: without this, numba would compile every combination.
_A = types.Array(float32, 3, "C", readonly=True)
_B = types.Array(float32, 4, "C", readonly=True)
_RESULT = types.Array(float32, 4, "C")


@_compiled(types.void(_A, _B, int64, _RESULT))
def products(a: Any, b: Any, depth: int, result: Any) -> None:
    """Fill ``result`` [n, g, r, c] with ``a`` [g, r, k] @ ``b`` [n, g, k, c].

    Every number is a chain of fused multiply-adds over k from 0 on, cut into pieces of ``depth`` that are
    added up.
    """
    inner, columns = b.shape[2], b.shape[3]
    buffer = np.empty((4, _PASS), np.float32)
    for image in range(b.shape[0]):
        for group in range(b.shape[1]):
            left, right, target = a[group], b[image, group], result[image, group]
            for begin in range(0, columns, _PASS):
                end = min(begin + _PASS, columns)
                sums = buffer[:, : end - begin]
                for first in range(0, inner, depth):
                    last = min(first + depth, inner)
                    fours = target.shape[0] // 4 * 4
                    for row in range(0, fours, 4):
                        _four_rows(left[row : row + 4], right, first, last, begin, sums)
                        for part in range(4):
                            _give(sums[part], first == 0, target[row + part, begin:end])
                    for row in range(fours, target.shape[0]):
                        _one_row(left[row], right, first, last, begin, sums[0])
                        _give(sums[0], first == 0, target[row, begin:end])
