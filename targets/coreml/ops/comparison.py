"""Comparison, logic, Where and Cast."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.cast import HANDLERS as CAST
from edgeq.targets.coreml.ops.elementwise import NUMBERS
from edgeq.targets.coreml.ops.tensors import scalar
from edgeq.targets.coreml.ops.where import where
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler


def _compare(op: str) -> Handler:
    """Greater, Less, …: floats and integers."""

    def handler(node: OnnxNode) -> Var:
        node.require_dtype(NUMBERS, 0, 1)
        return getattr(builder(), op)(x=node.input(0), y=node.input(1))

    return handler


def equal(node: OnnxNode) -> Var:
    """Equal: floats, integers and booleans (MIL's equal takes no booleans)."""
    mb = builder()
    node.require_dtype((*NUMBERS, ir.DataType.BOOL), 0, 1)
    x, y = node.input(0), node.input(1)
    if node.dtype(0) == ir.DataType.BOOL:
        return mb.logical_not(x=mb.logical_xor(x=x, y=y))
    return mb.equal(x=x, y=y)


def _logical(op: str) -> Handler:
    """And, Or, Xor."""

    def handler(node: OnnxNode) -> Var:
        node.require_dtype((ir.DataType.BOOL,), 0, 1)
        return getattr(builder(), op)(x=node.input(0), y=node.input(1))

    return handler


def logical_not(node: OnnxNode) -> Var:
    """Not."""
    node.require_dtype((ir.DataType.BOOL,), 0)
    return builder().logical_not(x=node.input(0))


def is_nan(node: OnnxNode) -> Var:
    """IsNaN: only NaN differs from itself."""
    node.require_float(0)
    return builder().not_equal(x=node.input(0), y=node.input(0))


def is_inf(node: OnnxNode) -> Var:
    """IsInf, of both signs or of one."""
    mb = builder()
    node.require_float(0)
    x, infinity = node.input(0), float("inf")
    positive, negative = node.attribute("detect_positive", 1), node.attribute("detect_negative", 1)
    if positive and negative:
        return mb.equal(x=mb.abs(x=x), y=scalar(x, infinity))
    if positive or negative:
        return mb.equal(x=x, y=scalar(x, infinity if positive else -infinity))
    return mb.logical_and(x=mb.equal(x=x, y=x), y=False)


HANDLERS: dict[str, Handler] = {
    "And": _logical("logical_and"),
    "Equal": equal,
    "Greater": _compare("greater"),
    "GreaterOrEqual": _compare("greater_equal"),
    "IsInf": is_inf,
    "IsNaN": is_nan,
    "Less": _compare("less"),
    "LessOrEqual": _compare("less_equal"),
    "Not": logical_not,
    "Or": _logical("logical_or"),
    "Where": where,
    "Xor": _logical("logical_xor"),
    **CAST,
}
