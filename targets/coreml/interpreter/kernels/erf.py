"""The Gauss error function of float32 arrays, compiled; numpy has none.

Two polynomials and no branches, so that the loop is vectorized: ten times as fast as ``math.erf``. The
coefficients are minimax fits (Lawson's iteration on weighted least squares) with relative errors below 2e-8.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.interpreter.compiled import compiled

_ONE = np.float32(1)
# Below it erf is x + x·p(x²), above it 1 - e^q(x).
_SPLIT = np.float32(0.9)
# From here on erf is 1 in float32.
_LAST = np.float32(4)
_LOG2_E = np.float32(1.4426950408889634)
# ln 2 in two parts: the first has so few bits that its multiples are exact.
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(-2.12194440e-4)


@compiled
def _exp(x: Any) -> Any:
    """e^x for -87 < x ≤ 0: a power of 2 times Taylor's polynomial within ± ln 2 / 2."""
    power = np.rint(x * _LOG2_E)
    r = (x - power * _LN2_HIGH) - power * _LN2_LOW
    p = np.float32(1 / 720)
    p = p * r + np.float32(1 / 120)
    p = p * r + np.float32(1 / 24)
    p = p * r + np.float32(1 / 6)
    p = p * r + np.float32(1 / 2)
    mantissa = p * r * r + r + _ONE
    return mantissa * np.int32(np.int32(power + np.float32(127)) << np.int32(23)).view(np.float32)


@compiled
def _near(x: Any) -> Any:
    s = x * x
    p = np.float32(-6.09036e-4)
    p = p * s + np.float32(5.0119627e-3)
    p = p * s + np.float32(-2.6778908e-2)
    p = p * s + np.float32(0.11282141)
    p = p * s + np.float32(-0.37612525)
    p = p * s + np.float32(0.12837915)
    return p * x + x


@compiled
def _far(x: Any) -> Any:
    q = np.float32(1.9821973e-4)
    q = q * x + np.float32(-3.0654909e-3)
    q = q * x + np.float32(2.2315215e-2)
    q = q * x + np.float32(-0.10411368)
    q = q * x + np.float32(-0.63697606)
    q = q * x + np.float32(-1.1277972)
    q = q * x + np.float32(-1.6644716e-4)
    return _ONE - _exp(q)


@compiled
def _erf_into(values: Any, out: Any) -> None:
    for i in range(values.size):
        x = values[i]
        size = min(abs(x), _LAST)
        far = np.float32(_far(size))
        far = -far if x < np.float32(0) else far
        found = far if size > _SPLIT else np.float32(_near(x))
        out[i] = found if x == x else x


def erf(x: Array) -> Array:
    """Error function of float32 ``x``, element-wise, to 2 units in the last place."""
    flat = np.ascontiguousarray(x).reshape(-1)
    out = np.empty_like(flat)
    _erf_into(flat, out)
    return out.reshape(x.shape)
