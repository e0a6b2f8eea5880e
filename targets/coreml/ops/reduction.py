"""Reduce*, and what :mod:`selection` and :mod:`cumulative` have: ArgMax, ArgMin, TopK, CumSum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgeq.targets.coreml.frontend.limits import MAX_RANK
from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.cumulative import HANDLERS as CUMULATIVE
from edgeq.targets.coreml.ops.data_movement import normalized_axis
from edgeq.targets.coreml.ops.elementwise import FLOATS, NUMBERS
from edgeq.targets.coreml.ops.selection import HANDLERS as SELECTION
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler

_ORDERED = (*NUMBERS, ir.DataType.BOOL)


@dataclass(frozen=True)
class _Reduction:
    """One Reduce op: MIL's op and the dtypes for which it is exact."""

    mil: str
    dtypes: tuple[ir.DataType, ...]


# integer means and norms round differently, so they are float only
_REDUCTIONS: Mapping[str, _Reduction] = {
    "ReduceL1": _Reduction("reduce_l1_norm", NUMBERS),
    "ReduceL2": _Reduction("reduce_l2_norm", FLOATS),
    "ReduceLogSum": _Reduction("reduce_log_sum", FLOATS),
    "ReduceLogSumExp": _Reduction("reduce_log_sum_exp", FLOATS),
    "ReduceMax": _Reduction("reduce_max", _ORDERED),
    "ReduceMean": _Reduction("reduce_mean", FLOATS),
    "ReduceMin": _Reduction("reduce_min", _ORDERED),
    "ReduceProd": _Reduction("reduce_prod", NUMBERS),
    "ReduceSum": _Reduction("reduce_sum", NUMBERS),
    "ReduceSumSquare": _Reduction("reduce_sum_square", NUMBERS),
}


def reduction(node: OnnxNode) -> Var:
    """A Reduce op: MIL's reduction of the same name."""
    op = _REDUCTIONS[node.op_type]
    node.require_dtype(op.dtypes, 0)
    if 0 in node.shape(0):
        node.refuse("it reduces an empty tensor", "Core ML has no empty tensors.")
    mb, x, axes, keep = builder(), node.input(0), _axes(node), bool(node.attribute("keepdims", 1))
    if node.dtype(0) != ir.DataType.BOOL:
        return _emit(node, op, x, axes, keep)
    return mb.cast(x=_emit(node, op, mb.cast(x=x, dtype="int32"), axes, keep), dtype="bool")


def _emit(node: OnnxNode, op: _Reduction, x: Var, axes: tuple[int, ...], keep: bool) -> Var:
    mb = builder()
    if not axes:
        # over no axis (or of a scalar) what remains is the op's elementwise part, as over an axis of size 1
        if node.rank(0) == MAX_RANK:
            node.refuse(f"it reduces no axis of a tensor of rank {MAX_RANK}")
        x, axes, keep = mb.expand_dims(x=x, axes=[0]), (0,), False
    return getattr(mb, op.mil)(x=x, axes=list(axes), keep_dims=keep)


def _axes(node: OnnxNode) -> tuple[int, ...]:
    """Axes to reduce, positive and sorted: input 1, before opset 18 the attribute."""
    rank = node.rank(0)
    given = node.known(1, "axes").ravel().tolist() if node.has_input(1) else node.attribute("axes")
    noop = bool(node.attribute("noop_with_empty_axes", 0))
    if not given:
        return () if noop else tuple(range(rank))
    return tuple(sorted({normalized_axis(node, int(axis), rank) for axis in given})) if rank else ()


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(_REDUCTIONS, reduction),
    **SELECTION,
    **CUMULATIVE,
}
