"""The Gauss error function, compiled; numpy has none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import vectorize

from edgeq.calibration.types import Array


@vectorize(["float32(float32)"], cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _erf(x: Any) -> Any:
    return math.erf(x)


def erf(x: Array) -> Array:
    """Error function of float32 ``x``, element-wise."""
    return np.asarray(_erf(x))
