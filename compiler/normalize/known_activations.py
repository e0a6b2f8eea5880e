"""The activations that have an ONNX operator, as functions to compare with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from edgeq.calibration.types import Array

_erf = np.vectorize(math.erf, otypes=[np.float64])


@dataclass(frozen=True)
class Activation:
    """An operator with its attributes and further inputs (None = left out)."""

    op_type: str
    attributes: Mapping[str, float | str] = field(default_factory=dict)
    inputs: tuple[Array | None, ...] = ()


Candidate = tuple[Activation, Callable[[Array], Array]]


def recognize(x: Array, y: Array, precision: float) -> Activation | None:
    """The activation that takes the samples ``x`` [n] to ``y`` [n, …], None when it is none of them.

    ``precision`` is relative: constants such as 0.7071 are rounded to the model's dtype. Where the activation
    is exactly 0, and far from zero, there is no absolute tolerance, so that Relu(x) + 1e-8 is not Relu(x).
    """
    if not np.all(np.isfinite(y)):
        return None
    samples = x.reshape([-1] + [1] * (y.ndim - 1))
    for activation, function in _candidates(x, y):
        wanted = function(samples)
        slack = np.where((wanted == 0) | (np.abs(samples) >= 12), 1e-15, precision * 1e-2)
        if np.all(np.abs(wanted - y) <= precision * np.abs(wanted) + slack):
            return activation
    return None


def _candidates(x: Array, y: Array) -> Iterator[Candidate]:
    if y[0].size > 1:
        # Of these only PRelu may have parameters that differ between channels.
        yield from _prelu(x, y)
        return
    yield Activation("Relu"), lambda v: np.maximum(v, 0)
    yield Activation("Gelu"), _gelu
    yield Activation("Gelu", {"approximate": "tanh"}), _gelu_tanh
    yield Activation("HardSwish"), lambda v: v * np.clip(v / 6 + 0.5, 0, 1)
    yield Activation("Sigmoid"), _sigmoid
    yield Activation("Tanh"), np.tanh
    yield Activation("Softplus"), lambda v: np.logaddexp(0, v)
    yield from _with_parameters(x, y.reshape(-1))


def _with_parameters(x: Array, y: Array) -> Iterator[Candidate]:
    """Families whose parameters are read off the samples."""
    zero = int(np.argmin(np.abs(x)))
    slope = float((y[zero + 1] - y[zero - 1]) / (x[zero + 1] - x[zero - 1]))
    if 0 < slope < 1 and 0 < y[zero] < 1:
        # 1/6 and 0.2 as float32 say them, not with the noise of the samples.
        alpha, beta = round(slope, 7), round(float(y[zero]), 7)
        alpha = 1 / 6 if abs(alpha - 1 / 6) < 1e-6 else alpha
        yield (
            Activation("HardSigmoid", {"alpha": alpha, "beta": beta}),
            lambda v: np.clip(alpha * v + beta, 0, 1),
        )
    leak = _slope_below_zero(x, y).item()
    if 0 < abs(leak) < 1:
        yield Activation("LeakyRelu", {"alpha": leak}), lambda v: np.where(v < 0, leak * v, v)
    low, high = float(y.min()), float(y.max())
    if x.min() < low < high < x.max():
        yield Activation("Clip", inputs=(np.array(low), np.array(high))), lambda v: np.clip(v, low, high)


def _prelu(x: Array, y: Array) -> Iterator[Candidate]:
    slope = _slope_below_zero(x, y)
    if not np.all(slope == 1):  # That would be the identity.
        yield Activation("PRelu", inputs=(slope,)), lambda v: np.where(v < 0, slope * v, v)


def _slope_below_zero(x: Array, y: Array) -> Array:
    index = int(np.argmin(np.abs(x + 1)))
    return np.asarray(y[index] / x[index])


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def _gelu(x: Array) -> Array:
    """Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016."""
    return np.asarray(0.5 * x * (1 + _erf(x / math.sqrt(2))))


def _gelu_tanh(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
