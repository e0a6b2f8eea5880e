"""Kernels of the MIL normalization ops, in float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.errors import TargetError
from edgeq.targets.coreml.interpreter.call import Call, Kernel
from edgeq.targets.coreml.interpreter.kernels.window import integers


def batch_norm(call: Call) -> Array:
    """MIL ``batch_norm``: statistics per channel (axis 1) are given."""
    x: Array = call["x"]
    shape = _per_channel(x)
    scale = 1 / np.sqrt(call["variance"] + _epsilon(call, 1e-5))
    result = x - call["mean"].reshape(shape)
    if call.get("gamma") is not None:
        scale = scale * call["gamma"]
    result *= scale.reshape(shape)
    return _shifted(result, call.get("beta"), shape)


def instance_norm(call: Call) -> Array:
    """MIL ``instance_norm``: statistics over the spatial axes of each image and channel."""
    x: Array = call["x"]
    shape = _per_channel(x)
    result = _standardized(x, tuple(range(2, x.ndim)), _epsilon(call, 1e-5))
    if call.get("gamma") is not None:
        result *= call["gamma"].reshape(shape)
    return _shifted(result, call.get("beta"), shape)


def layer_norm(call: Call) -> Array:
    """MIL ``layer_norm``: statistics over ``axes`` (all when left out); gamma and beta have their shape."""
    x: Array = call["x"]
    given = call.get("axes")
    axes = tuple(range(x.ndim)) if given is None else tuple(axis % x.ndim for axis in integers(given))
    result = _standardized(x, axes, _epsilon(call, 1e-5))
    shape = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
    if call.get("gamma") is not None:
        result *= call["gamma"].reshape(shape)
    return _shifted(result, call.get("beta"), shape)


def l2_norm(call: Call) -> Array:
    """MIL ``l2_norm``: x / √(Σ x² + ε) over the last three axes."""
    x: Array = call["x"]
    total = np.sum(np.square(x), axis=(-3, -2, -1), keepdims=True)
    return np.asarray(x / np.sqrt(total + _epsilon(call, 1e-6)))


def local_response_norm(call: Call) -> Array:
    """MIL ``local_response_norm`` over ``size`` channels around each one.

    MIL does not say on which side an even ``size`` has one more.
    """
    x: Array = call["x"]
    size = int(call["size"])
    if size % 2 == 0:
        raise TargetError(
            f"Core ML: local_response_norm {call.name!r} has the even size {size}, which MIL does not define."
        )
    squares = np.pad(np.square(x), [(0, 0), (size // 2, size // 2), *[(0, 0)] * (x.ndim - 2)])
    total = sum(squares[:, shift : shift + x.shape[1]] for shift in range(size))
    alpha, beta, k = (
        _scalar(call, name, value) for name, value in (("alpha", 1e-4), ("beta", 0.75), ("k", 1.0))
    )
    return np.asarray(x / np.power(k + alpha / np.float32(size) * total, beta))


def _standardized(x: Array, axes: Sequence[int], epsilon: np.float32) -> Array:
    """(x - mean) / √(variance + ε), a new array."""
    result = np.asarray(x - np.mean(x, axis=tuple(axes), keepdims=True))
    variance = np.mean(np.square(result), axis=tuple(axes), keepdims=True)
    result /= np.sqrt(variance + epsilon)
    return result


def _per_channel(x: Array) -> list[int]:
    return [1, -1, *[1] * (x.ndim - 2)]


def _shifted(result: Array, beta: Array | None, shape: Sequence[int]) -> Array:
    if beta is not None:
        result += beta.reshape(shape)
    return result


def _epsilon(call: Call, default: float) -> np.float32:
    return _scalar(call, "epsilon", default)


def _scalar(call: Call, parameter: str, default: float) -> np.float32:
    value: Any = call.get(parameter)
    return np.float32(default if value is None else value)


KERNELS: dict[str, Kernel] = {
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "l2_norm": l2_norm,
    "layer_norm": layer_norm,
    "local_response_norm": local_response_norm,
}
