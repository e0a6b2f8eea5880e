"""Kernels of MIL's ``topk`` and ``argsort``; of equal values the first comes first."""

from __future__ import annotations

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.interpreter.call import Call, Kernel


def _order(x: Array, axis: int, *, ascending: bool) -> Array:
    if ascending:
        return np.argsort(x, axis, kind="stable")
    # integers have no negative of their lowest value
    return np.argsort(-x if x.dtype.kind == "f" else -x.astype(np.int64), axis, kind="stable")


def _argsort(call: Call) -> Array:
    ascending = bool(call.get("ascending", False))
    return _order(call["x"], int(call.get("axis", -1)), ascending=ascending).astype(np.int32)


def _topk(call: Call) -> tuple[Array, ...]:
    """``topk``: values and, unless ``return_indices`` is off, indices; k = -1 takes all."""
    x: Array = call["x"]
    axis, k = int(call.get("axis", -1)) % x.ndim, int(call.get("k", 1))
    order = _order(x, axis, ascending=bool(call.get("ascending", False)))
    if k != -1:
        order = order[(slice(None),) * axis + (slice(k),)]
    values = np.take_along_axis(x, order, axis)
    return (values, order) if call.get("return_indices", True) else (values,)


KERNELS: dict[str, Kernel] = {"argsort": _argsort, "topk": _topk}
