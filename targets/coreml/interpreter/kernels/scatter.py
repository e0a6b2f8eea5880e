"""Kernels of MIL's ``scatter`` family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.interpreter.call import Call, Kernel
from edgeq.targets.coreml.interpreter.kernels.gather import check_bounds, check_points


def _update(out: Array, index: Any, updates: Array) -> None:
    out[index] = updates


# ``at`` applies every update where an index comes more than once.
_MODES: dict[str, Callable[[Array, Any, Array], None]] = {
    "add": np.add.at,
    "div": np.divide.at,
    "max": np.maximum.at,
    "min": np.minimum.at,
    "mul": np.multiply.at,
    "sub": np.subtract.at,
    "update": _update,
}


def _apply(call: Call, index: Any) -> Array:
    out: Array = call["data"].copy()
    _MODES[call.get("mode", "add")](out, index, call["updates"])
    return out


def _scatter(call: Call) -> Array:
    """``scatter``: whole slices along ``axis``."""
    axis = int(call.get("axis", 0)) % call["data"].ndim
    check_bounds(call, call["indices"], call["data"].shape[axis])
    return _apply(call, (slice(None),) * axis + (call["indices"],))


def _scatter_along_axis(call: Call) -> Array:
    """``scatter_along_axis``: single elements, each at its own index along ``axis``."""
    indices: Array = call["indices"]
    axis = int(call.get("axis", 0)) % indices.ndim
    check_bounds(call, indices, call["data"].shape[axis])
    index: list[Any] = list(np.ogrid[tuple(slice(size) for size in indices.shape)])
    index[axis] = indices
    return _apply(call, tuple(index))


def _scatter_nd(call: Call) -> Array:
    """``scatter_nd``: slices at the coordinates that the last dimension of ``indices`` holds."""
    check_points(call, call["indices"], call["data"].shape)
    return _apply(call, tuple(np.moveaxis(call["indices"], -1, 0)))


KERNELS: dict[str, Kernel] = {
    "scatter": _scatter,
    "scatter_along_axis": _scatter_along_axis,
    "scatter_nd": _scatter_nd,
}
