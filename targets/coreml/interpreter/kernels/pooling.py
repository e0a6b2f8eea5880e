"""Kernels of the MIL pooling ops. Windows are boxes, so each axis is reduced on its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.interpreter.call import Call, Kernel
from edgeq.targets.coreml.interpreter.kernels.window import Axis, axes_of, integers, padded

_Combine = Callable[..., Array]


def max_pool(call: Call) -> Array:
    """MIL ``max_pool``: padding never wins."""
    x, axes = _geometry(call)
    return _reduced(padded(x, axes, -np.inf), axes, np.maximum)


def avg_pool(call: Call) -> Array:
    """MIL ``avg_pool``: zeros of the padding count unless ``exclude_padding_from_average``."""
    x, axes = _geometry(call)
    total = _reduced(padded(x, axes), axes, np.add)
    counted = _inside if bool(call.get("exclude_padding_from_average", False)) else _inside_padding
    total /= _counts(axes, counted)
    return total


def l2_pool(call: Call) -> Array:
    """MIL ``l2_pool``: the root of the sum of squares in the window."""
    x, axes = _geometry(call)
    return np.sqrt(_reduced(padded(np.square(x), axes), axes, np.add))


def _geometry(call: Call) -> tuple[Array, tuple[Axis, ...]]:
    x: Array = call["x"]
    return x, axes_of(call, x.shape[2:], integers(call["kernel_sizes"]))


def _reduced(source: Array, axes: Sequence[Axis], combine: _Combine) -> Array:
    """Combine the windows' elements, first axis first: ONNX Runtime adds in this order."""
    result = source
    for place, axis in enumerate(axes):
        result = _reduced_axis(result, place + 2, axis, combine)
    return result if result is not source else source.copy()


def _reduced_axis(source: Array, place: int, axis: Axis, combine: _Combine) -> Array:
    if axis.kernel == axis.stride == 1:
        return source
    seen = [source[(*(slice(None),) * place, axis.positions(offset))] for offset in range(axis.kernel)]
    if len(seen) == 1:
        return np.ascontiguousarray(seen[0])
    result = combine(seen[0], seen[1])
    for part in seen[2:]:
        combine(result, part, out=result)
    return result


def _counts(axes: Sequence[Axis], counted: Callable[[Axis], Array]) -> Array:
    """Elements that each window counts, [*d_out]."""
    return reduce(np.multiply.outer, [counted(axis) for axis in axes]).astype(np.float32)


def _inside(axis: Axis) -> Array:
    """Input elements in each window."""
    starts = np.arange(axis.output) * axis.stride - axis.before
    return np.asarray(np.minimum(starts + axis.kernel, axis.size) - np.maximum(starts, 0))


def _inside_padding(axis: Axis) -> Array:
    """Input and padding elements in each window; what ``ceil_mode`` adds behind does not count (PyTorch)."""
    starts = np.arange(axis.output) * axis.stride
    return np.asarray(np.minimum(starts + axis.kernel, axis.before + axis.size + axis.after) - starts)


KERNELS: dict[str, Kernel] = {"avg_pool": avg_pool, "l2_pool": l2_pool, "max_pool": max_pool}
