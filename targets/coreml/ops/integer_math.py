"""Integer arithmetic with C's rules, of MIL ops that round towards minus infinity; bitwise ops."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.dimensions import nonnegative
from edgeq.targets.coreml.ops.elementwise import INTEGERS
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler


def divide_truncating(x: Var, y: Var) -> Var:
    """X / y rounded towards zero.

    The floor is one too small where the remainder is not 0 and the signs differ. No intermediate value
    leaves the range of x, so the whole of int32 is exact. Sizes are not negative: there the floor is it.
    """
    mb = builder()
    floor = mb.floor_div(x=x, y=y)
    if nonnegative(x) and nonnegative(y):
        return floor
    inexact = mb.not_equal(x=mb.mul(x=floor, y=y), y=x)
    opposite = mb.less(x=x, y=0)
    if not nonnegative(y):
        opposite = mb.logical_xor(x=opposite, y=mb.less(x=y, y=0))
    return mb.add(x=floor, y=mb.cast(x=mb.logical_and(x=inexact, y=opposite), dtype="int32"))


def remainder_truncating(x: Var, y: Var) -> Var:
    """X - y·(x / y rounded towards zero): the sign of x, like C's ``%``."""
    mb = builder()
    return mb.sub(x=x, y=mb.mul(x=y, y=divide_truncating(x, y)))


def bitwise_not(node: OnnxNode) -> Var:
    """BitwiseNot: -1 - x in two's complement."""
    node.require_dtype(INTEGERS, 0)
    return builder().sub(x=-1, y=node.input(0))


def _refuse_bitwise(node: OnnxNode) -> NoReturn:
    node.refuse("MIL has no bitwise operations on integers")


BITWISE: dict[str, Handler] = {
    "BitShift": _refuse_bitwise,
    "BitwiseAnd": _refuse_bitwise,
    "BitwiseNot": bitwise_not,
    "BitwiseOr": _refuse_bitwise,
    "BitwiseXor": _refuse_bitwise,
}
