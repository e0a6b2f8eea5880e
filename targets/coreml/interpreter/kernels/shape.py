"""Kernels of MIL's shape changes: same values, another shape or order."""

from __future__ import annotations

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.interpreter.call import Call, Kernel


def _identity(call: Call) -> Array:
    return np.asarray(call["x"])


def _reshape(call: Call) -> Array:
    """``reshape``: 0 keeps the dimension at its place, -1 is what is left."""
    x, wanted = call["x"], [int(size) for size in call["shape"]]
    return np.asarray(x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(wanted)]))


def _transpose(call: Call) -> Array:
    return np.asarray(np.transpose(call["x"], call["perm"]))


def _expand_dims(call: Call) -> Array:
    return np.asarray(np.expand_dims(call["x"], tuple(int(axis) for axis in call["axes"])))


def _squeeze(call: Call) -> Array:
    axes = call.get("axes")
    return np.asarray(np.squeeze(call["x"], None if axes is None else tuple(int(axis) for axis in axes)))


def _concat(call: Call) -> Array:
    """``concat``; ``interleave`` takes one slice of each value in turn."""
    values, axis = call["values"], int(call["axis"])
    if not call.get("interleave", False):
        return np.concatenate(values, axis)
    stacked = np.stack(values, axis % values[0].ndim + 1)
    shape = list(values[0].shape)
    shape[axis] *= len(values)
    return np.asarray(stacked.reshape(shape))


def _stack(call: Call) -> Array:
    return np.stack(call["values"], int(call["axis"]))


KERNELS: dict[str, Kernel] = {
    "concat": _concat,
    "expand_dims": _expand_dims,
    "identity": _identity,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "stack": _stack,
    "transpose": _transpose,
}
