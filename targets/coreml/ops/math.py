"""Elementwise arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.elementwise import (
    FLOAT16_MAX,
    FLOATS,
    INTEGERS,
    NUMBERS,
    inverse,
    negative,
    numbers,
    reduced,
    require_int32,
    unary,
)
from edgeq.targets.coreml.ops.integer_math import BITWISE, divide_truncating, remainder_truncating
from edgeq.targets.coreml.ops.power import power
from edgeq.targets.coreml.ops.tensors import scalar
from edgeq.targets.coreml.ops.trigonometry import HANDLERS as TRIGONOMETRY
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler


def _variadic(op: str, *, below: bool = False, above: bool = False) -> Handler:
    """Add, Sub, Mul, Min, Max, Sum: MIL's ``op`` over all inputs, floats or integers."""

    def handler(node: OnnxNode) -> Var:
        return reduced(getattr(builder(), op), numbers(node, below=below, above=above))

    return handler


def mean(node: OnnxNode) -> Var:
    """Mean: sum of the inputs divided by their number."""
    mb = builder()
    node.require_float(*range(node.input_count))
    values = [node.input(index) for index in range(node.input_count)]
    return mb.real_div(x=reduced(mb.add, values), y=scalar(values[0], len(values)))


def divide(node: OnnxNode) -> Var:
    """Div: floats exactly, integers truncated towards zero."""
    x, y = numbers(node)
    if node.dtype(0) in INTEGERS:
        _refuse_zero(node)
        return divide_truncating(x, y)
    return builder().real_div(x=x, y=y)


def modulo(node: OnnxNode) -> Var:
    """Mod: the sign of the divisor (integers), or of the dividend with ``fmod``."""
    mb = builder()
    x, y = numbers(node)
    like_dividend = bool(node.attribute("fmod", 0))
    if node.dtype(0) in INTEGERS:
        _refuse_zero(node)
        return remainder_truncating(x, y) if like_dividend else mb.mod(x=x, y=y)
    if not like_dividend:
        node.refuse("fmod = 0 is not defined for floats")
    # of two numbers that are not negative all definitions of the remainder agree
    return mb.mul(x=mb.sign(x=x), y=mb.mod(x=mb.abs(x=x), y=mb.abs(x=y)))


def _refuse_zero(node: OnnxNode) -> None:
    divisor = node.constant(1)
    if divisor is not None and not divisor.all():
        node.refuse("it divides integers by the constant 0")


def neg(node: OnnxNode) -> Var:
    """Neg: -x."""
    return negative(numbers(node)[0])


def _signed(op: str) -> Handler:
    """Abs and Sign: floats and integers."""

    def handler(node: OnnxNode) -> Var:
        return getattr(builder(), op)(x=numbers(node)[0])

    return handler


def log(node: OnnxNode) -> Var:
    """Log; MIL adds 1e-45 to x unless told otherwise."""
    node.require_float(0)
    x = node.input(0)
    return builder().log(x=x, epsilon=scalar(x, 0))


def reciprocal(node: OnnxNode) -> Var:
    """Reciprocal: 1 / x."""
    node.require_float(0)
    return inverse(node.input(0))


def clip(node: OnnxNode) -> Var:
    """Clip: min(max(x, lower), upper); either bound may be left out, or computed."""
    mb = builder()
    node.require_dtype(NUMBERS, 0)
    native = _native_clip(node) if node.dtype(0) in FLOATS else None
    if native is not None:
        return native
    require_int32(node, 1, below=True)
    require_int32(node, 2, above=True)
    x = node.input(0)
    if node.has_input(1):
        x = mb.maximum(x=x, y=_bound(node, 1))
    return mb.minimum(x=x, y=_bound(node, 2)) if node.has_input(2) else x


def _native_clip(node: OnnxNode) -> Var | None:
    """MIL's relu, relu6 or clip, where the bounds are constant and one of them is the same."""
    mb, x = builder(), node.input(0)
    lower, upper = node.constant(1), node.constant(2)
    if lower is None:
        return None
    low = float(lower.item())
    if low == 0 and not node.has_input(2):
        return mb.relu(x=x)
    if upper is None:
        return None
    high = float(upper.item())
    if (low, high) == (0, 6):
        return mb.relu6(x=x)
    # MIL wants them in order, and they must be finite in float16 as well
    in_order = -FLOAT16_MAX <= low < high <= FLOAT16_MAX
    return mb.clip(x=x, alpha=scalar(x, low), beta=scalar(x, high)) if in_order else None


def _bound(node: OnnxNode, index: int) -> Var:
    """A bound as scalar: models also have them with one axis."""
    bound = node.input(index)
    return builder().squeeze(x=bound, axes=list(range(bound.rank))) if bound.rank else bound


HANDLERS: dict[str, Handler] = {
    "Abs": _signed("abs"),
    "Add": _variadic("add"),
    "Ceil": unary("ceil"),
    "Clip": clip,
    "Div": divide,
    "Exp": unary("exp"),
    "Floor": unary("floor"),
    "Log": log,
    "Max": _variadic("maximum", below=True),
    "Mean": mean,
    "Min": _variadic("minimum", above=True),
    "Mod": modulo,
    "Mul": _variadic("mul"),
    "Neg": neg,
    "Pow": power,
    "Reciprocal": reciprocal,
    "Round": unary("round"),
    "Sign": _signed("sign"),
    "Sqrt": unary("sqrt"),
    "Sub": _variadic("sub"),
    "Sum": _variadic("add"),
    **BITWISE,
    **TRIGONOMETRY,
}
