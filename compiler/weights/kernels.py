"""The compiled loops of the weight methods: each row (output channel) by itself. Imports numba.

Everywhere: ``codes`` are 0..``top``, a code's value is (code - zero) * scale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

# Rows that are rounded together, so that each step is one of whole vectors, and columns whose errors are
# carried to all behind them at once.
_TILE, _STEP = 64, 8
# Weights below this are zero for every float32 kernel; dividing by their scale would overflow.
TINY = np.float32(1e-30)

_F = TypeVar("_F", bound=Callable[..., Any])


def _compiled(function: _F) -> _F:
    return cast(_F, njit(cache=True, nogil=True, fastmath={"reassoc", "nsz", "contract"})(function))


@_compiled
def _code(value: Any, inverse: Any, zero: Any, top: Any) -> Any:
    return min(max(np.rint(value * inverse) + zero, np.float32(0)), top)


@_compiled
def _gain(row: Any, weights: Any, scale: Any, zero: Any, top: Any) -> tuple[Any, Any]:
    """<w, q> and <q, q>, weighted, of the integers q = code - zero that ``scale`` gives."""
    inverse = np.float32(1) / scale
    cross, square = np.float32(0), np.float32(0)
    for k in range(row.shape[0]):
        q = _code(row[k], inverse, zero, top) - zero
        weighted = weights[k] * q
        cross += row[k] * weighted
        square += weighted * q
    return cross, square


@_compiled
def _refitted(row: Any, weights: Any, scale: Any, zero: Any, top: Any) -> Any:
    """Round, fit the scale to the integers by least squares, round again, while it improves."""
    best, best_gain = scale, np.float32(-1)
    for _ in range(5):
        cross, square = _gain(row, weights, scale, zero, top)
        if square <= 0 or cross == 0 or cross * cross / square <= best_gain:
            break
        best, best_gain = np.float32(cross / square), cross * cross / square
        scale = best
    return best


@_compiled
def _searched(
    row: Any, weights: Any, low: Any, high: Any, top: Any, zeros: Any, clips: Any, negative: bool
) -> tuple[Any, Any]:
    """The scale and zero point of the least weighted error; ``zeros`` are the first and last to try."""
    best, best_zero, best_gain = np.float32(1), zeros[0], np.float32(-1)
    for zero in range(zeros[0], zeros[1] + 1):
        below, above = np.float32(max(zero, 1)), np.float32(max(top - zero, 1))
        reach = max(high / above, -low / below)
        mirrored = max(high / below, -low / above)
        for clip in clips:
            scale = reach * clip
            cross, square = _gain(row, weights, scale, np.float32(zero), top)
            if square > 0 and cross * cross > best_gain * square:
                best, best_zero, best_gain = scale, zero, cross * cross / square
            if not negative:
                continue
            scale = -mirrored * clip
            cross, square = _gain(row, weights, scale, np.float32(zero), top)
            if square > 0 and cross * cross > best_gain * square:
                best, best_zero, best_gain = scale, zero, cross * cross / square
    return _refitted(row, weights, best, np.float32(best_zero), top), best_zero


@_compiled
def search_grids(
    rows: Any, weights: Any, top: int, lowest_zero: int, fixed_zero: int, clips: Any, negative: bool
) -> Any:
    """Scales and zero points of ``rows`` float32 [rows, n] with ``weights`` float32 [any, n], cyclic.

    ``fixed_zero`` below 0: zero points from ``lowest_zero`` on are searched too.
    """
    scales = np.ones(rows.shape[0], np.float32)
    zeros = np.full(rows.shape[0], max(fixed_zero, lowest_zero), np.uint8)
    for index in range(rows.shape[0]):
        row = rows[index]
        low, high = min(np.float32(0), row.min()), max(np.float32(0), row.max())
        if high - low < TINY:
            continue
        middle = int(np.rint(-low / (high - low) * top))
        span = 1 if top > 7 else 2
        first = min(max(middle - span, lowest_zero), top) if fixed_zero < 0 else fixed_zero
        last = min(max(middle + span, lowest_zero), top) if fixed_zero < 0 else fixed_zero
        scales[index], zeros[index] = _searched(
            row, weights[index % weights.shape[0]], low, high, np.float32(top), (first, last), clips, negative
        )
    return scales, zeros


@_compiled
def nearest_codes(rows: Any, scales: Any, zeros: Any, top: int) -> Any:
    """The nearest codes of ``rows`` [rows, n] with a scale and a zero point each."""
    codes = np.empty(rows.shape, np.uint8)
    for index in range(rows.shape[0]):
        inverse, zero = np.float32(1) / scales[index], np.float32(zeros[index])
        for k in range(rows.shape[1]):
            codes[index, k] = np.uint8(_code(rows[index, k], inverse, zero, np.float32(top)))
    return codes


@_compiled
def feed_back(
    wanted: Any, feedback: Any, groups: Any, scales: Any, zeros: Any, top: int, codes: Any, left: Any
) -> None:
    """Round columns one after the other, each with the errors of those before it.

    ``wanted`` [rows, n] are the weights with what earlier blocks ask of them; of ``feedback`` [n, n] the
    strictly upper triangle counts; ``groups`` [n]: the column of ``scales`` and ``zeros`` that each column
    has. ``left`` [rows, n] are the weights, and becomes what is left of them.
    """
    columns = wanted.shape[1]
    tile = np.zeros((columns, _TILE), np.float32)
    errors = np.zeros((_STEP, _TILE), np.float32)
    for start in range(0, wanted.shape[0], _TILE):
        stop = min(start + _TILE, wanted.shape[0])
        for k in range(columns):
            for r in range(stop - start):
                tile[k, r] = wanted[start + r, k]
        for first in range(0, columns, _STEP):
            for k in range(first, min(first + _STEP, columns)):
                error = errors[k - first]
                group = groups[k]
                _round_column(
                    tile[k], scales[start:stop, group], zeros[start:stop, group], top,
                    codes[start:stop, k], left[start:stop, k], error,
                )  # fmt: skip
                for j in range(k + 1, min(first + _STEP, columns)):
                    _add(tile[j], error, feedback[k, j])
            _add_step(tile, errors, feedback, first)


@_compiled
def _round_column(wanted: Any, scales: Any, zeros: Any, top: int, codes: Any, left: Any, error: Any) -> None:
    """A column of a tile: its codes, and what is left of it, twice."""
    high = np.float32(top)
    for r in range(scales.shape[0]):
        scale, zero = scales[r], np.float32(zeros[r])
        code = _code(wanted[r], np.float32(1) / scale, zero, high)
        codes[r] = np.uint8(code)
        error[r] = left[r] - (code - zero) * scale
        left[r] = error[r]


@_compiled
def _add(row: Any, error: Any, along: Any) -> None:
    for r in range(_TILE):
        row[r] += error[r] * along


@_compiled
def _add_step(tile: Any, e: Any, feedback: Any, first: int) -> None:
    """What the errors ``e`` of the step's columns ask of all columns behind it: :data:`_STEP` at once."""
    for j in range(first + _STEP, tile.shape[0]):
        f = feedback[first : first + _STEP, j]
        a, b, c, d, x, y, z, w = f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7]
        for r in range(_TILE):
            tile[j, r] += (
                e[0, r] * a + e[1, r] * b + e[2, r] * c + e[3, r] * d
                + e[4, r] * x + e[5, r] * y + e[6, r] * z + e[7, r] * w
            )  # fmt: skip


@_compiled
def descend(
    pull: Any, hessian: Any, group: int, scales: Any, zeros: Any, top: int, codes: Any, change: Any
) -> None:
    """Set each code of a group to the best one given all others, column by column.

    ``pull`` [rows, n] is (weight - value) times the Hessian's columns, ``hessian`` [n, n] their block.
    ``change`` [rows, n] gets what is added to the values.
    """
    high = np.float32(top)
    columns = pull.shape[1]
    for index in range(pull.shape[0]):
        row = pull[index]
        scale, zero = scales[index, group], np.float32(zeros[index, group])
        inverse = np.float32(1) / scale
        for k in range(columns):
            old = np.float32(codes[index, k])
            value = (old - zero) * scale + row[k] / hessian[k, k]
            code = _code(value, inverse, zero, high)
            step = (code - old) * scale
            change[index, k] = step
            if step == 0:
                continue
            codes[index, k] = np.uint8(code)
            for j in range(k + 1, columns):
                row[j] -= step * hessian[k, j]
