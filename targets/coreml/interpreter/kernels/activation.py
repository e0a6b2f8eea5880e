"""Kernels of MIL's activations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.errors import TargetError
from edgeq.targets.coreml.interpreter.call import Call, Kernel
from edgeq.targets.coreml.interpreter.kernels.erf import erf

_ZERO = np.float32(0)
_ONE = np.float32(1)


def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x)."""
    return _ONE / (_ONE + np.exp(-x))


def _channels(parameter: Array, rank: int) -> Array:
    """A vector over the second dimension, ready to broadcast."""
    return parameter.reshape((1, -1) + (1,) * (rank - 2))


def _relu(call: Call) -> Array:
    return np.asarray(np.maximum(call["x"], _ZERO))


def _relu6(call: Call) -> Array:
    return np.asarray(np.minimum(np.maximum(call["x"], _ZERO), np.float32(6)))


def _clamped_relu(call: Call) -> Array:
    """``clamped_relu``: min(beta, x) for x ≥ 0, else min(beta, alpha·x)."""
    x = call["x"]
    return np.asarray(np.minimum(np.where(x >= 0, x, call["alpha"] * x), call["beta"]))


def _elu(call: Call) -> Array:
    """``elu``: x for x > 0, else alpha·(e^x - 1)."""
    x = call["x"]
    return np.asarray(np.where(x > 0, x, call["alpha"] * np.expm1(np.minimum(x, _ZERO))))


def _leaky_relu(call: Call) -> Array:
    x = call["x"]
    return np.asarray(np.where(x >= 0, x, call["alpha"] * x))


def _prelu(call: Call) -> Array:
    """``prelu``: one alpha per channel."""
    x = call["x"]
    return np.asarray(np.where(x > 0, x, _channels(call["alpha"], x.ndim) * x))


def _gelu(call: Call) -> Array:
    x, mode = call["x"], call.get("mode", "EXACT")
    if mode == "EXACT":
        return np.asarray(np.float32(0.5) * x * (_ONE + erf(x * np.float32(math.sqrt(0.5)))))
    if mode == "TANH_APPROXIMATION":
        inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * (x * x * x))
        return np.asarray(np.float32(0.5) * x * (_ONE + np.tanh(inner)))
    if mode == "SIGMOID_APPROXIMATION":
        return np.asarray(x * sigmoid(np.float32(1.702) * x))
    raise TargetError(f"The operation {call.name!r} (gelu) has the mode {mode!r}, which MIL does not define.")


def _linear_activation(call: Call) -> Array:
    return np.asarray(call["alpha"] * call["x"] + call["beta"])


def _scaled_tanh(call: Call) -> Array:
    return np.asarray(call["alpha"] * np.tanh(call["beta"] * call["x"]))


def _sigmoid(call: Call) -> Array:
    return np.asarray(sigmoid(call["x"]))


def _sigmoid_hard(call: Call) -> Array:
    """``sigmoid_hard``: alpha·x + beta, within 0 and 1."""
    return np.asarray(np.minimum(np.maximum(call["alpha"] * call["x"] + call["beta"], _ZERO), _ONE))


def _silu(call: Call) -> Array:
    return np.asarray(call["x"] * sigmoid(call["x"]))


def _softplus_of(x: Any) -> Any:
    """ln(1 + e^x) without overflow."""
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, _ZERO)


def _softplus(call: Call) -> Array:
    return np.asarray(_softplus_of(call["x"]))


def _softplus_parametric(call: Call) -> Array:
    """``softplus_parametric``: alpha·ln(1 + e^(beta·x)), one alpha and beta per channel."""
    x = call["x"]
    return np.asarray(_channels(call["alpha"], x.ndim) * _softplus_of(_channels(call["beta"], x.ndim) * x))


def _softmax(call: Call) -> Array:
    x, axis = call["x"], int(call.get("axis", -1))
    powers: Array = np.subtract(x, x.max(axis=axis, keepdims=True))
    np.exp(powers, out=powers)
    powers /= powers.sum(axis=axis, keepdims=True)
    return powers


def _softsign(call: Call) -> Array:
    return np.asarray(call["x"] / (_ONE + np.abs(call["x"])))


def _thresholded_relu(call: Call) -> Array:
    """``thresholded_relu``: x for x ≥ alpha, else 0."""
    x = call["x"]
    return np.asarray(np.where(x >= call["alpha"], x, _ZERO))


KERNELS: dict[str, Kernel] = {
    "clamped_relu": _clamped_relu,
    "elu": _elu,
    "gelu": _gelu,
    "leaky_relu": _leaky_relu,
    "linear_activation": _linear_activation,
    "prelu": _prelu,
    "relu": _relu,
    "relu6": _relu6,
    "scaled_tanh": _scaled_tanh,
    "sigmoid": _sigmoid,
    "sigmoid_hard": _sigmoid_hard,
    "silu": _silu,
    "softmax": _softmax,
    "softplus": _softplus,
    "softplus_parametric": _softplus_parametric,
    "softsign": _softsign,
    "thresholded_relu": _thresholded_relu,
}
