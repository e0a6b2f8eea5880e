"""Kernels of MIL's shape changes: the same values in another shape, order or tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.interpreter.call import Call, Kernel

# From here on a 0 in reshape's shape counts dimensions from the right.
_RIGHT_ALIGNED = 17


def integers(vector: Array) -> tuple[int, ...]:
    """The elements of a vector (or of a scalar) as Python integers."""
    return tuple(np.reshape(vector, -1).tolist())


def _identity(call: Call) -> Array:
    return np.asarray(call["x"])


def _reshape(call: Call) -> Array:
    """``reshape``: 0 takes the dimension of x, -1 is what is left."""
    x: Array = call["x"]
    wanted = integers(call["shape"])
    if 0 in wanted:
        wanted = _fill_zeros(x.shape, wanted, right=call.opset >= _RIGHT_ALIGNED)
    return x.reshape(wanted)


def _fill_zeros(shape: Sequence[int], wanted: Sequence[int], *, right: bool) -> tuple[int, ...]:
    offset = len(shape) - len(wanted) if right else 0
    if not right and len(shape) != len(wanted):
        raise ValueError("a shape with 0 needs the rank of x before iOS 17")
    return tuple(
        size if size != 0 else (shape[i + offset] if i + offset >= 0 else 1) for i, size in enumerate(wanted)
    )


def _reshape_like(call: Call) -> Array:
    """``reshape_like``: the shape is put together from slices of other tensors' shapes."""
    shape: list[int] = []
    parts = zip(call["ref_tensors"], call["begins"], call["ends"], call["end_masks"], strict=True)
    for reference, begin, end, masked in parts:
        shape += reference.shape[int(begin) : None if masked else int(end)]
    return np.reshape(call["x"], shape)


def _flatten2d(call: Call) -> Array:
    x: Array = call["x"]
    axis = int(call.get("axis", 1))
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _transpose(call: Call) -> Array:
    return np.transpose(call["x"], integers(call["perm"]))


def _expand_dims(call: Call) -> Array:
    return np.expand_dims(call["x"], integers(call["axes"]))


def _squeeze(call: Call) -> Array:
    """``squeeze``: dimensions other than 1 stay, as in PyTorch."""
    x: Array = call["x"]
    axes = call.get("axes")
    if axes is None:
        return np.squeeze(x)
    return np.squeeze(x, tuple(axis for axis in integers(axes) if x.shape[axis] == 1))


def _concat(call: Call) -> Array:
    """``concat``; ``interleave`` takes one slice of each value in turn."""
    values: list[Array] = call["values"]
    axis, rank = int(call["axis"]), values[0].ndim
    if rank == 0:
        return np.stack(values)
    if not call.get("interleave", False):
        return np.concatenate(values, axis)
    shape = list(values[0].shape)
    shape[axis] *= len(values)
    return np.stack(values, axis % rank + 1).reshape(shape)


def _stack(call: Call) -> Array:
    return np.stack(call["values"], int(call["axis"]))


def _split(call: Call) -> tuple[Array, ...]:
    """``split``: into ``split_sizes``, or into ``num_splits`` parts of one size."""
    sizes = call.get("split_sizes")
    if sizes is None:
        return tuple(np.split(call["x"], int(call["num_splits"]), int(call["axis"])))
    return tuple(np.split(call["x"], np.cumsum(sizes)[:-1], int(call["axis"])))


def _tile(call: Call) -> Array:
    return np.tile(call["x"], integers(call["reps"]))


def _reverse(call: Call) -> Array:
    axes = call.get("axes")
    return np.flip(call["x"], None if axes is None else integers(axes))


def _reverse_sequence(call: Call) -> Array:
    """``reverse_sequence``: the first ``lengths[i]`` elements of every sequence i."""
    x: Array = call["x"]
    batch, sequence = int(call.get("batch_axis", 0)), int(call.get("seq_axis", 0))
    out = x.copy()
    source, target = (np.moveaxis(array, (batch, sequence), (0, 1)) for array in (x, out))
    for i, length in enumerate(integers(call["lengths"])):
        target[i, :length] = source[i, :length][::-1]
    return out


KERNELS: dict[str, Kernel] = {
    "concat": _concat,
    "expand_dims": _expand_dims,
    "flatten2d": _flatten2d,
    "identity": _identity,
    "reshape": _reshape,
    "reshape_like": _reshape_like,
    "reverse": _reverse,
    "reverse_sequence": _reverse_sequence,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
}
