"""The compiled loops of :mod:`edgeq.compiler.quantize.rounding`. Importing this imports numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

from edgeq.compiler.quantize.saturation import PAIR_LIMIT

# Weights below this are zero for every float32 kernel; dividing by their scale would overflow.
TINY = np.float32(1e-30)

_F = TypeVar("_F", bound=Callable[..., Any])


def _compiled(function: _F) -> _F:
    return cast(_F, njit(cache=True)(function))


@_compiled
def _peak(row: Any) -> Any:
    peak = np.float32(0.0)
    for value in row:
        peak = max(peak, abs(value))
    return peak


@_compiled
def _fit(row: Any, scale: Any, low: int, high: int) -> tuple[float, float]:
    """<w, q> and <q, q> of the integers that ``scale`` gives."""
    inverse = np.float32(1.0) / scale
    cross, square = 0.0, 0.0
    for value in row:
        q = min(max(np.rint(value * inverse), low), high)
        cross += value * q
        square += q * q
    return cross, square


@_compiled
def _refit(row: Any, scale: Any, low: int, high: int) -> Any:
    """Round, refit the scale, round again, while it improves."""
    cross, square = _fit(row, scale, low, high)
    gain = cross * cross / square if square > 0.0 else 0.0
    for _ in range(4):
        if square == 0.0 or cross == 0.0:
            break
        tried = np.float32(cross / square)
        cross, square = _fit(row, tried, low, high)
        if square == 0.0 or cross * cross / square <= gain:
            break
        gain = cross * cross / square
        scale = tried
    return scale, gain


@_compiled
def _best_scale(row: Any, peak: Any, low: int, high: int, clip: Any, both_signs: bool) -> Any:
    best, best_gain = np.float32(1.0), -1.0
    for sign in (1.0, -1.0):
        if sign < 0.0 and not both_signs:
            continue
        for factor in clip:
            scale = np.float32(sign * peak / (high * factor))
            cross, square = _fit(row, scale, low, high)
            gain = cross * cross / square if square > 0.0 else 0.0
            if gain > best_gain:
                best, best_gain = scale, gain
    return best


@_compiled
def search_symmetric(rows: Any, low: int, high: int, clip: Any, both_signs: bool) -> Any:
    codes = np.zeros(rows.shape, dtype=np.int16)
    scales = np.ones(rows.shape[0], dtype=np.float32)
    for index in range(rows.shape[0]):
        row = rows[index]
        peak = _peak(row)
        if peak < TINY:
            continue
        scale = _best_scale(row, peak, low, high, clip, both_signs)
        scale, _ = _refit(row, scale, low, high)
        cross, square = _fit(row, scale, low, high)
        inverse = np.float32(1.0) / scale
        for k in range(row.shape[0]):
            codes[index, k] = min(max(np.rint(row[k] * inverse), low), high)
        scales[index] = cross / square if square > 0.0 else scale
    return codes, scales


@_compiled
def search_asymmetric(rows: Any, top: int, clip: Any) -> Any:
    codes = np.zeros(rows.shape, dtype=np.int16)
    scales = np.ones(rows.shape[0], dtype=np.float32)
    zeros = np.zeros(rows.shape[0], dtype=np.int16)
    for index in range(rows.shape[0]):
        row = rows[index]
        low, high = min(np.float32(0.0), row.min()), max(np.float32(0.0), row.max())
        if high - low < TINY:
            continue
        best_scale, best_zero, best_gain = np.float32(1.0), 0, -1.0
        for factor in clip:
            scale = np.float32((high - low) / (top * factor))
            middle = int(np.rint(-low / (high - low) * top))
            for zero in range(max(0, middle - 1), min(top, middle + 1) + 1):
                cross, square = _fit(row, scale, -zero, top - zero)
                gain = cross * cross / square if square > 0.0 else 0.0
                if gain > best_gain:
                    best_scale, best_zero, best_gain = scale, zero, gain
        scale, _ = _refit(row, best_scale, -best_zero, top - best_zero)
        cross, square = _fit(row, scale, -best_zero, top - best_zero)
        inverse = np.float32(1.0) / scale
        for k in range(row.shape[0]):
            q = min(max(np.rint(row[k] * inverse), -best_zero), top - best_zero)
            codes[index, k] = q + best_zero
        scales[index] = cross / square if square > 0.0 else scale
        zeros[index] = best_zero
    return codes, scales, zeros


@_compiled
def _round_pairs(row: Any, scale: Any, out: Any) -> tuple[float, float]:
    """Fill ``out`` with int8 codes whose aligned pairs stay within the limit; <w, q> and <q, q>."""
    inverse = np.float32(1.0) / scale
    for k in range(row.shape[0]):
        out[k] = min(max(np.rint(row[k] * inverse), -127), 127)
    for k in range(0, row.shape[0] - 1, 2):
        first, second = out[k], out[k + 1]
        over = abs(first + second) - PAIR_LIMIT
        if over <= 0:
            continue
        # Both have the same sign, else their sum could not pass 128. The excess is shared between them,
        # as far as the smaller one has room.
        sign = 1 if first > 0 else -1
        share = min(over // 2, abs(first), abs(second))
        if abs(first) >= abs(second):
            out[k], out[k + 1] = first - sign * (over - share), second - sign * share
        else:
            out[k], out[k + 1] = first - sign * share, second - sign * (over - share)
    cross, square = 0.0, 0.0
    for k in range(row.shape[0]):
        cross += row[k] * out[k]
        square += np.float64(out[k]) * np.float64(out[k])
    return cross, square


@_compiled
def search_pairs(rows: Any, clip: Any) -> Any:
    codes = np.zeros(rows.shape, dtype=np.int16)
    scales = np.ones(rows.shape[0], dtype=np.float32)
    trial = np.zeros(rows.shape[1], dtype=np.int16)
    for index in range(rows.shape[0]):
        row = rows[index]
        peak = _peak(row)
        if peak < TINY:
            continue
        best_gain = -1.0
        for factor in clip:
            cross, square = _round_pairs(row, np.float32(peak / (127.0 * factor)), trial)
            if square > 0.0 and cross * cross / square > best_gain:
                best_gain = cross * cross / square
                codes[index, :] = trial
                scales[index] = cross / square
    return codes, scales
