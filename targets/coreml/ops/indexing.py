"""Index inputs of gather and scatter ops, without negative indices: MIL takes none since iOS 17."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.node import OnnxNode, Var, int32
from edgeq.targets.coreml.ops.dimensions import scalar, size_of, sizes_of, vector_of, wrapped
from edgeq.targets.coreml.ops.elementwise import INTEGERS


def indices_along(node: OnnxNode, x: Var, axis: int) -> Any:
    """Input 1 as indices into ``axis`` of ``x``, none of them negative."""
    node.require_dtype(INTEGERS, 1)
    known = node.constant(1)
    size = size_of(x, axis)
    if known is None:
        return wrapped(node.input(1), scalar(size))
    if isinstance(size, int):
        _check_range(node, known, size)
        known = np.where(known < 0, known + size, known)
    indices = node.lowering.const(int32(known))
    return wrapped(indices, scalar(size))


def _check_range(node: OnnxNode, indices: Array, size: int) -> None:
    if np.any((indices < -size) | (indices >= size)):
        node.refuse(f"an index is outside of an axis of size {size}")


def index_tuples(node: OnnxNode, x: Var, batch: int = 0) -> Var:
    """Input 1 as tuples of indices into the axes of ``x`` from ``batch`` on, none of them negative."""
    node.require_dtype(INTEGERS, 1)
    indices = node.input(1)
    depth = node.shape(1)[-1]
    if depth is None:
        node.refuse("the length of its index tuples is only known at run time")
    return wrapped(indices, vector_of(sizes_of(x)[batch : batch + depth]))
