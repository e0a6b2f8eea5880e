"""What elementwise ONNX operators compute, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from edgeq.calibration.types import Array
from edgeq.compiler.normalize.editing import get_float

_erf = np.vectorize(math.erf, otypes=[np.float64])

Evaluator = Callable[[ir.Node, Sequence[Array | None]], Array | None]


def evaluate(node: ir.Node, inputs: Sequence[Array | None]) -> Array | None:
    """The node's output for these inputs, None when it cannot be computed."""
    return EVALUATORS[node.op_type](node, inputs)


def _unary(function: Callable[[Array], Array]) -> Evaluator:
    return lambda node, inputs: None if inputs[0] is None else function(inputs[0])


def _binary(function: Callable[[Array, Array], Array]) -> Evaluator:
    def compute(node: ir.Node, inputs: Sequence[Array | None]) -> Array | None:
        first, second = inputs
        return None if first is None or second is None else function(first, second)

    return compute


def _variadic(function: Callable[[Array, Array], Array]) -> Evaluator:
    def compute(node: ir.Node, inputs: Sequence[Array | None]) -> Array | None:
        result = inputs[0]
        for value in inputs[1:]:
            if result is None or value is None:
                return None
            result = function(result, value)
        return result

    return compute


def _clip(node: ir.Node, inputs: Sequence[Array | None]) -> Array | None:
    low, high = (inputs[i] if len(inputs) > i else None for i in (1, 2))
    missing = [i for i in (1, 2) if len(node.inputs) > i and node.inputs[i] is not None and inputs[i] is None]
    if inputs[0] is None or missing:
        return None
    result = inputs[0] if low is None else np.maximum(inputs[0], low)
    return result if high is None else np.minimum(result, high)


def _hard_sigmoid(node: ir.Node, inputs: Sequence[Array | None]) -> Array | None:
    alpha, beta = get_float(node, "alpha", 0.2), get_float(node, "beta", 0.5)
    return None if inputs[0] is None else np.clip(alpha * inputs[0] + beta, 0, 1)


def _leaky_relu(node: ir.Node, inputs: Sequence[Array | None]) -> Array | None:
    alpha = get_float(node, "alpha", 0.01)
    return None if inputs[0] is None else np.where(inputs[0] < 0, alpha * inputs[0], inputs[0])


def _prelu(x: Array, slope: Array) -> Array:
    return np.where(x < 0, slope * x, x)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


EVALUATORS: Mapping[str, Evaluator] = {
    "Abs": _unary(np.abs),
    "Add": _binary(np.add),
    "Clip": _clip,
    "Div": _binary(np.divide),
    "Erf": _unary(_erf),
    "Exp": _unary(np.exp),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "LeakyRelu": _leaky_relu,
    "Log": _unary(np.log),
    "Max": _variadic(np.maximum),
    "Min": _variadic(np.minimum),
    "Mul": _binary(np.multiply),
    "Neg": _unary(np.negative),
    "PRelu": _binary(_prelu),
    "Pow": _binary(np.power),
    "Reciprocal": _unary(np.reciprocal),
    "Relu": _unary(lambda x: np.maximum(x, 0)),
    "Sigmoid": _unary(_sigmoid),
    "Softplus": _unary(lambda x: np.logaddexp(0, x)),
    "Sub": _binary(np.subtract),
    "Sum": _variadic(np.add),
    "Tanh": _unary(np.tanh),
}
