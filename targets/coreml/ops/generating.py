"""Ops that make tensors from sizes and indices: ranges, constants, diagonals, one-hot vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.node import OnnxNode, Var, int32
from edgeq.targets.coreml.ops.data_movement import MOVABLE, movable, normalized_axis
from edgeq.targets.coreml.ops.dimensions import Size, elements, scalar, size_of, vector_of, wrapped
from edgeq.targets.coreml.ops.elementwise import FLOATS, INTEGERS
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler

# MIL's names of the dtypes that cast makes.
_CASTS = {
    ir.DataType.FLOAT: "fp32",
    ir.DataType.FLOAT16: "fp16",
    ir.DataType.INT32: "int32",
    ir.DataType.INT64: "int32",
    ir.DataType.BOOL: "bool",
}


def range_(node: OnnxNode) -> Var:
    """Range of integers; of floats only where they are integers cast to float."""
    node.require_dtype((*INTEGERS, *FLOATS), 0)
    bounds = [_bound(node, index) for index in range(3)]
    mb = builder()
    numbers = mb.range_1d(start=bounds[0], end=bounds[1], step=bounds[2])
    return mb.cast(x=numbers, dtype=_CASTS[node.dtype(0)]) if node.dtype(0) in FLOATS else numbers


def _bound(node: OnnxNode, index: int) -> Any:
    known = node.constant(index)
    if known is not None:
        number = known.reshape(-1)[0]
        if number != np.floor(number) or abs(number) > np.iinfo(np.int32).max:
            _refuse_fractions(node)
        return np.int32(number)
    bound = node.input(index)
    if node.dtype(0) in FLOATS:
        bound = _before_cast(node, bound)
    return scalar(bound) if bound.rank else bound


def _before_cast(node: OnnxNode, bound: Var) -> Var:
    cast = bound.op
    if cast is None or cast.op_type != "cast" or cast.x.dtype is not _int32_type(node):
        _refuse_fractions(node)
    return cast.x


def _int32_type(node: OnnxNode) -> Any:
    return node.lowering.const(np.zeros(1, np.int32)).dtype


def _refuse_fractions(node: OnnxNode) -> None:
    node.refuse(
        "its float bounds are computed at run time, where rounding to float16 may change the length",
        "Use Range on integers and cast the result.",
    )


def constant_of_shape(node: OnnxNode) -> Var:
    """ConstantOfShape."""
    value = _fill_value(node)
    sizes = elements(node, 0, "sizes")
    return builder().fill(shape=vector_of(sizes), value=value[()])


def _fill_value(node: OnnxNode) -> Array:
    value: Array = np.asarray(node.attribute("value", np.zeros(1, np.float32))).reshape(-1)[0]
    dtype = ir.DataType.from_numpy(value.dtype)
    if dtype not in MOVABLE:
        node.refuse(f"its value is {dtype.name.lower()}, which Core ML tensors cannot be")
    if dtype == ir.DataType.INT64:
        if int(int32(np.asarray(value))) != int(value):
            node.refuse(f"its value {value} does not fit in int32")
        return np.asarray(value, np.int32)
    return np.asarray(value)


def _index_grid(rows: Size, columns: Size) -> tuple[Any, Any]:
    """Row numbers [rows, 1] and column numbers [1, columns]."""
    mb = builder()
    grids = []
    for count, axis in ((rows, 1), (columns, 0)):
        if isinstance(count, int):
            grids.append(np.expand_dims(np.arange(count, dtype=np.int32), axis))
            continue
        numbers = mb.range_1d(start=np.int32(0), end=scalar(count), step=np.int32(1))
        grids.append(mb.expand_dims(x=numbers, axes=[axis]))
    return grids[0], grids[1]


def _diagonal(operation: str, rows: Size, columns: Size, offset: int) -> Any:
    """Bool matrix: where column - row compares with ``offset`` as MIL's ``operation`` says."""
    row, column = _index_grid(rows, columns)
    if isinstance(row, np.ndarray) and isinstance(column, np.ndarray):
        compare = {"equal": np.equal, "greater_equal": np.greater_equal, "less_equal": np.less_equal}
        return compare[operation](column - row, offset)
    mb = builder()
    return getattr(mb, operation)(x=mb.sub(x=column, y=row), y=np.int32(offset))


def trilu(node: OnnxNode) -> Var:
    """Trilu: what is above or below the diagonal ``k``, zero elsewhere."""
    x = movable(node)
    offset = int(node.known(1, "k").reshape(-1)[0]) if node.has_input(1) else 0
    offset = int(int32(np.array(offset)))
    operation = "greater_equal" if node.attribute("upper", 1) else "less_equal"
    rows, columns = size_of(x, x.rank - 2), size_of(x, x.rank - 1)
    mask = _diagonal(operation, rows, columns, offset)
    mb = builder()
    if x.rank > 2:
        mask = mb.expand_dims(x=mask, axes=list(range(x.rank - 2)))
    if node.dtype(0) == ir.DataType.BOOL:
        return mb.logical_and(x=x, y=mask)
    # not a product: infinity times zero is no number
    return mb.select(cond=mask, a=x, b=node.lowering.const(np.zeros((), node.dtype(0).numpy())))


def eye_like(node: OnnxNode) -> Var | Array:
    """EyeLike: ones on the diagonal ``k`` of a matrix of the input's shape."""
    shape = node.shape(0)
    dtype = ir.DataType(node.attribute("dtype", node.dtype(0)))
    offset = node.attribute("k", 0)
    if len(shape) != 2:
        node.refuse(f"its input has rank {len(shape)}, not 2")
    rows, columns = shape
    if rows is not None and columns is not None:
        node.constant(0)  # its numbers are not needed
        return np.eye(rows, columns, k=offset, dtype=dtype.numpy())
    if dtype not in _CASTS:
        node.refuse(f"its result is {dtype.name.lower()}, which Core ML tensors cannot be")
    x = node.input(0)
    mask = _diagonal("equal", size_of(x, 0), size_of(x, 1), offset)
    return mask if dtype == ir.DataType.BOOL else builder().cast(x=mask, dtype=_CASTS[dtype])


def one_hot(node: OnnxNode) -> Var:
    """OneHot: ``on`` at the index, ``off`` elsewhere and for indices out of range."""
    node.require_dtype((*INTEGERS, *FLOATS), 0)
    node.require_dtype(MOVABLE, 2)
    mb = builder()
    indices = node.input(0)
    if node.dtype(0) in FLOATS:
        indices = mb.cast(x=indices, dtype="int32")
    depth = _depth(node)
    rank = indices.rank + 1
    axis = normalized_axis(node, node.attribute("axis", -1), rank)
    there = mb.expand_dims(x=wrapped(indices, depth), axes=[axis])
    hit = mb.equal(x=there, y=_along(depth, axis, rank))
    return _chosen(node, hit)


def _depth(node: OnnxNode) -> Any:
    sizes = elements(node, 1, "depths")
    return np.int32(sizes[0]) if isinstance(sizes[0], int) else scalar(sizes[0])


def _along(depth: Any, axis: int, rank: int) -> Any:
    """0, 1, … depth - 1 along ``axis`` of ``rank`` axes."""
    others = [each for each in range(rank) if each != axis]
    if isinstance(depth, np.generic):
        return np.expand_dims(np.arange(depth, dtype=np.int32), others)
    mb = builder()
    numbers = mb.range_1d(start=np.int32(0), end=depth, step=np.int32(1))
    return mb.expand_dims(x=numbers, axes=others) if others else numbers


def _chosen(node: OnnxNode, hit: Var) -> Var:
    """``values[1]`` where ``hit``, ``values[0]`` elsewhere."""
    mb = builder()
    dtype = node.dtype(2)
    known = node.constant(2)
    if known is not None and known.astype(np.float64).tolist() == [0, 1]:
        return hit if dtype == ir.DataType.BOOL else mb.cast(x=hit, dtype=_CASTS[dtype])
    values = node.input(2)
    if dtype == ir.DataType.BOOL:
        values = mb.cast(x=values, dtype="int32")
    positions = mb.cast(x=hit, dtype="int32")
    chosen = mb.gather(x=values, indices=positions, axis=0)
    return mb.cast(x=chosen, dtype="bool") if dtype == ir.DataType.BOOL else chosen


HANDLERS: dict[str, Handler] = {
    "ConstantOfShape": constant_of_shape,
    "EyeLike": eye_like,
    "OneHot": one_hot,
    "Range": range_,
    "Trilu": trilu,
}
