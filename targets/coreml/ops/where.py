"""Where: MIL's select infers its shape from the two values alone."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import onnx_ir as ir

from edgeq.targets.coreml.frontend.lowering import known_dimension, mil_type_name
from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.elementwise import NUMBERS
from edgeq.targets.coreml.toolkit import builder


def where(node: OnnxNode) -> Var:
    """Where: x where the condition holds, else y; all three broadcast."""
    node.require_dtype((ir.DataType.BOOL,), 0)
    node.require_dtype((*NUMBERS, ir.DataType.BOOL), 1, 2)
    condition, x, y = node.input(0), node.input(1), node.input(2)
    if not _covers(condition.shape, x.shape, y.shape):
        x = _broadcast(x, condition)
    return builder().select(cond=condition, a=x, b=y)


def _covers(condition: tuple[Any, ...], x: tuple[Any, ...], y: tuple[Any, ...]) -> bool:
    """Whether x and y broadcast to the whole shape without the condition."""
    sizes = zip_longest(reversed(condition), reversed(x), reversed(y), fillvalue=1)
    if len(condition) > max(len(x), len(y)):
        return False
    return all(c == 1 or c in (a, b) or _larger(a) or _larger(b) for c, a, b in sizes)


def _larger(size: Any) -> bool:
    """Known to be above 1: the size of the result, whatever the others are."""
    known = known_dimension(size)
    return known is not None and known > 1


def _broadcast(x: Var, condition: Var) -> Var:
    """X in the broadcast shape of both, by combining it with zeros of the condition's shape."""
    mb = builder()
    zeros = mb.logical_and(x=condition, y=False)
    if mil_type_name(x) == "bool":
        return mb.logical_or(x=x, y=zeros)
    # subtracted, so that -0 stays -0
    return mb.sub(x=x, y=mb.cast(x=zeros, dtype=mil_type_name(x)))
