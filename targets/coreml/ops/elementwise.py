"""What the elementwise families share: dtypes, scalars of the right MIL type, broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.tensors import scalar
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
INTEGERS = (ir.DataType.INT32, ir.DataType.INT64)
NUMBERS = (*FLOATS, *INTEGERS)

# Largest finite float16: constants up to here survive the compilation to float16.
FLOAT16_MAX = float(np.finfo(np.float16).max)


def negative(x: Var) -> Var:
    """-x."""
    return builder().mul(x=x, y=scalar(x, -1))


def inverse(x: Var) -> Var:
    """1 / x. MIL's inverse adds an epsilon: 0 as well makes +0 of -0, and +inf of -inf."""
    return builder().real_div(x=scalar(x, 1), y=x)


def unary(op: str) -> Handler:
    """Handler of a float op that MIL has under the name ``op`` with one input ``x``."""

    def handler(node: OnnxNode) -> Var:
        node.require_float(0)
        return getattr(builder(), op)(x=node.input(0))

    return handler


def numbers(node: OnnxNode, *, below: bool = False, above: bool = False) -> list[Var]:
    """All inputs, which must be float32, float16, int32 or int64.

    Constants that Core ML's int32 cannot hold are refused, because arithmetic with a saturated one would be
    wrong; ``below`` and ``above`` say that it would not, on that side of int32.
    """
    node.require_dtype(NUMBERS, *range(node.input_count))
    for index in range(node.input_count):
        require_int32(node, index, below=below, above=above)
    return [node.input(index) for index in range(node.input_count)]


def require_int32(node: OnnxNode, index: int, *, below: bool = False, above: bool = False) -> None:
    """Refuse a constant outside int32, unless numbers ``below`` or ``above`` it may saturate."""
    content = node.constant(index)
    if content is None or content.dtype != np.int64 or not content.size:
        return
    bounds = np.iinfo(np.int32)
    if (content.min() < bounds.min and not below) or (content.max() > bounds.max and not above):
        node.refuse(f"its input {index} is a constant that Core ML's int32 cannot hold")


def reduced(combine: Callable[..., Var], values: list[Var]) -> Var:
    """``combine(x=…, y=…)`` over any number of values, from the left; one value is itself."""
    result = values[0]
    for value in values[1:]:
        result = combine(x=result, y=value)
    return result
