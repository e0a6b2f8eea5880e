"""Pow: constant exponents as multiplications, because MIL's pow goes through a logarithm on some devices.

(coremltools issues 2601: pow(x, 2) is not x·x; 2628: pow(2, 0) is 0.)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.lowering import mil_type_name
from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.elementwise import FLOATS, INTEGERS, NUMBERS, inverse
from edgeq.targets.coreml.ops.tensors import scalar
from edgeq.targets.coreml.toolkit import builder

_MIL_NAME = {ir.DataType.FLOAT: "fp32", ir.DataType.FLOAT16: "fp16"}


def power(node: OnnxNode) -> Var:
    """Pow: x^y in the dtype of x."""
    node.require_dtype(NUMBERS, 0)
    exponent = _uniform(node.constant(1), node.rank(0))
    if node.dtype(0) in INTEGERS:
        return _integer_power(node, exponent)
    special = _SPECIAL.get(exponent) if exponent is not None else None
    if special is not None:
        return special(node.input(0))
    return _general(node)


def _uniform(content: Array | None, rank: int) -> float | None:
    """The constant's only number, when it does not change the rank of the result."""
    if content is None or content.size != 1 or content.ndim > rank or content.dtype.kind not in "fiu":
        return None
    return float(content.item())


def _integer_power(node: OnnxNode, exponent: float | None) -> Var:
    if exponent is None or exponent < 1 or not exponent.is_integer() or exponent > 31:
        node.refuse(
            f"its base is {node.dtype(0).name.lower()} and its exponent is no constant between 1 and 31",
            "Cast the base to float32 in the model.",
        )
    return _multiplied(node.input(0), int(exponent))


def _multiplied(x: Var, exponent: int) -> Var:
    """x^exponent by repeated squaring."""
    if exponent == 1:
        return x
    mb = builder()
    half = _multiplied(x, exponent // 2)
    square = mb.mul(x=half, y=half)
    return mb.mul(x=square, y=x) if exponent % 2 else square


def _general(node: OnnxNode) -> Var:
    mb = builder()
    base_dtype, exponent = node.dtype(0), _exponent(node)
    if _uniform(node.constant(0), exponent.rank) == 2 and base_dtype == node.dtype(1):
        return mb.exp2(x=exponent)
    base = node.input(0)
    if mil_type_name(exponent) == mil_type_name(base):
        return mb.pow(x=base, y=exponent)
    # ONNX computes in the wider dtype and rounds to the base's
    wide = mb.pow(x=mb.cast(x=base, dtype="fp32"), y=mb.cast(x=exponent, dtype="fp32"))
    return mb.cast(x=wide, dtype=_MIL_NAME[base_dtype])


def _exponent(node: OnnxNode) -> Var:
    content = node.constant(1)
    if content is not None and content.dtype.kind in "fiu":
        return node.lowering.const(_exact(node, content))
    node.require_dtype(NUMBERS, 1)
    exponent = node.input(1)
    return exponent if node.dtype(1) in FLOATS else builder().cast(x=exponent, dtype=_MIL_NAME[node.dtype(0)])


def _exact(node: OnnxNode, content: Array) -> Array:
    """The exponent in the dtype of the base, if that does not change it."""
    if content.dtype in (np.float16, np.float32):
        return content
    converted = content.astype(node.dtype(0).numpy())
    if not (converted.astype(content.dtype) == content).all():
        node.refuse(f"its exponent is {content.dtype} and does not fit {node.dtype(0).name.lower()}")
    return converted


def _one(x: Var) -> Var:
    """1 in the shape of x; x^0 is 1 for NaN and infinities as well."""
    mb = builder()
    return mb.cast(x=mb.logical_or(x=mb.equal(x=x, y=x), y=True), dtype=mil_type_name(x))


_SPECIAL: dict[float, Callable[[Var], Var]] = {
    0.0: _one,
    0.5: lambda x: builder().sqrt(x=x),
    1.0: lambda x: x,
    2.0: lambda x: builder().square(x=x),
    3.0: lambda x: _multiplied(x, 3),
    4.0: lambda x: _multiplied(x, 4),
    -0.5: lambda x: builder().rsqrt(x=x, epsilon=scalar(x, 0)),
    -1.0: inverse,
    # the inverse first: the square of a small number underflows in float16
    -2.0: lambda x: builder().square(x=inverse(x)),
}
