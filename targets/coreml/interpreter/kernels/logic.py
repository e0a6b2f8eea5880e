"""Kernels of MIL's comparisons, logic and ``select``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.interpreter.call import Call, Kernel


def _binary(function: Callable[[Any, Any], Any]) -> Kernel:
    return lambda call: np.asarray(function(call["x"], call["y"]))


def _not(call: Call) -> Array:
    return np.asarray(np.logical_not(call["x"]))


def _select(call: Call) -> Array:
    """``select``: a where cond, else b."""
    return np.asarray(np.where(call["cond"], call["a"], call["b"]))


KERNELS: dict[str, Kernel] = {
    "equal": _binary(np.equal),
    "greater": _binary(np.greater),
    "greater_equal": _binary(np.greater_equal),
    "less": _binary(np.less),
    "less_equal": _binary(np.less_equal),
    "logical_and": _binary(np.logical_and),
    "logical_not": _not,
    "logical_or": _binary(np.logical_or),
    "logical_xor": _binary(np.logical_xor),
    "not_equal": _binary(np.not_equal),
    "select": _select,
}
