"""What the ops that move values share: the dtypes that MIL moves, and axes counted from the front."""

from __future__ import annotations

import onnx_ir as ir

from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.toolkit import builder

# What every version of MIL moves. int64 is int32 there: the values of a model's tensors fit or were refused.
MOVABLE = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.BOOL)
_SMALL = (ir.DataType.INT8, ir.DataType.UINT8)
_SMALL_SINCE = 17


def movable(node: OnnxNode, index: int = 0, *, small: bool = False) -> Var:
    """Input ``index`` of a dtype that MIL moves; ``small``: int8 and uint8 as well, where MIL has them."""
    allowed = (*MOVABLE, *_SMALL) if small and node.lowering.ios >= _SMALL_SINCE else MOVABLE
    node.require_dtype(allowed, index)
    return node.input(index)


def numeric(node: OnnxNode, index: int = 0, *, small: bool = False) -> Var:
    """Like :func:`movable`, with bool as int32 for the MIL ops that take no bool."""
    x = movable(node, index, small=small)
    return builder().cast(x=x, dtype="int32") if node.dtype(index) == ir.DataType.BOOL else x


def restored(node: OnnxNode, result: Var, index: int = 0) -> Var:
    """The result of moving :func:`numeric` input ``index``, in that input's dtype again."""
    return builder().cast(x=result, dtype="bool") if node.dtype(index) == ir.DataType.BOOL else result


def normalized_axis(node: OnnxNode, axis: int, rank: int) -> int:
    """``axis`` counted from the front; refused when there is no such axis."""
    if not -rank <= axis < rank:
        node.refuse(f"its axis {axis} does not exist in rank {rank}")
    return axis % rank if rank else 0
