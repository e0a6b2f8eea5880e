"""What the ops that move values share: dtypes, folding of known inputs, and the limits of Core ML tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.folding import folded
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler

MAX_RANK = 5
# What every version of MIL moves. int64 is int32 there: the values of a model's tensors fit or were refused.
MOVABLE = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.BOOL)
_SMALL = (ir.DataType.INT8, ir.DataType.UINT8)
_SMALL_SINCE = 17


def data_movement(handlers: Mapping[str, Handler]) -> dict[str, Handler]:
    """The handlers, each preceded by constant folding and followed by the checks of rank and emptiness."""
    return {op_type: _guarded(handler) for op_type, handler in handlers.items()}


def _guarded(handler: Handler) -> Handler:
    @wraps(handler)
    def guarded(node: OnnxNode) -> Any:
        known = folded(node)
        if known is not None:
            return known
        results = handler(node)
        for result in results if isinstance(results, Sequence) else [results]:
            _check_limits(node, result)
        return results

    return guarded


def _check_limits(node: OnnxNode, result: Any) -> None:
    if result is None or isinstance(result, np.ndarray):
        return
    if result.rank > MAX_RANK:
        node.refuse(f"its result has rank {result.rank} and Core ML tensors have at most {MAX_RANK}")
    if any(isinstance(size, (int, np.integer)) and size == 0 for size in result.shape):
        node.refuse("its result is empty, and Core ML has no empty tensors")


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
