"""Circular and hyperbolic functions; MIL lacks asinh and acosh."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.elementwise import inverse, unary
from edgeq.targets.coreml.ops.tensors import scalar
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler


def asinh(node: OnnxNode) -> Var:
    """Asinh: atanh(x / sqrt(x² + 1)) up to |x| = 1, sign(x)·log(|x| + sqrt(x² + 1)) above.

    Either form alone loses all digits on the other side. Above 1, |x| is taken out of the logarithm, so that
    no square overflows float16.
    """
    mb = builder()
    node.require_float(0)
    x = node.input(0)
    one, size = scalar(x, 1), mb.abs(x=x)
    small = mb.minimum(x=size, y=one)
    near = mb.atanh(x=mb.real_div(x=small, y=mb.sqrt(x=mb.add(x=mb.square(x=small), y=one))))
    far = _logarithmic(mb.maximum(x=size, y=one), mb.add)
    return mb.mul(x=mb.sign(x=x), y=mb.select(cond=mb.less(x=size, y=one), a=near, b=far))


def acosh(node: OnnxNode) -> Var:
    """Acosh: atanh(sqrt(x - 1)·sqrt(x + 1) / x) below 2, log(x + sqrt(x² - 1)) above; NaN below 1."""
    mb = builder()
    node.require_float(0)
    x = node.input(0)
    one, two = scalar(x, 1), scalar(x, 2)
    small = mb.minimum(x=x, y=two)
    root = mb.mul(x=mb.sqrt(x=mb.sub(x=small, y=one)), y=mb.sqrt(x=mb.add(x=small, y=one)))
    near = mb.atanh(x=mb.real_div(x=root, y=small))
    far = _logarithmic(mb.maximum(x=x, y=two), mb.sub)
    return mb.select(cond=mb.less(x=x, y=two), a=near, b=far)


def _logarithmic(x: Var, combine: Callable[..., Var]) -> Var:
    """log(x + sqrt(x² ± 1)) as log(x) + log(1 + sqrt(1 ± 1/x²))."""
    mb = builder()
    one, zero = scalar(x, 1), scalar(x, 0)
    reciprocal = mb.square(x=inverse(x))
    root = mb.sqrt(x=combine(x=one, y=reciprocal))
    return mb.add(x=mb.log(x=x, epsilon=zero), y=mb.log(x=mb.add(x=root, y=one), epsilon=zero))


HANDLERS: dict[str, Handler] = {
    "Acos": unary("acos"),
    "Acosh": acosh,
    "Asin": unary("asin"),
    "Asinh": asinh,
    "Atan": unary("atan"),
    "Atanh": unary("atanh"),
    "Cos": unary("cos"),
    "Cosh": unary("cosh"),
    "Sin": unary("sin"),
    "Sinh": unary("sinh"),
    "Tan": unary("tan"),
}
