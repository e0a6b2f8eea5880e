"""Sizes that are numbers, or MIL variables when they are only known at run time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from edgeq.targets.coreml.frontend.lowering import known_dimension
from edgeq.targets.coreml.frontend.node import OnnxNode, Var, int32
from edgeq.targets.coreml.toolkit import builder

# A number, or an int32 variable of shape [1].
Size = Any

# MIL ops that give no negative number when the parameters named here are not negative.
_KEEP_SIGN: dict[str, tuple[str, ...]] = {
    "add": ("x", "y"),
    "cast": ("x",),
    "concat": ("values",),
    "expand_dims": ("x",),
    "floor_div": ("x", "y"),
    "gather": ("x",),
    "identity": ("x",),
    "minimum": ("x", "y"),
    "mul": ("x", "y"),
    "range_1d": ("start", "step"),
    "reduce_prod": ("x",),
    "reshape": ("x",),
    "select": ("a", "b"),
    "slice_by_index": ("x",),
    "squeeze": ("x",),
    "tile": ("x",),
    "transpose": ("x",),
}
_NEVER_NEGATIVE = frozenset({"shape", "non_zero", "reduce_argmax", "reduce_argmin", "argsort"})
_LONGEST_CHAIN = 32


def size_of(x: Var, axis: int) -> Size:
    """The size of ``x`` along ``axis`` (from the front)."""
    known = known_dimension(x.shape[axis])
    return known if known is not None else element(builder().shape(x=x), axis)


def sizes_of(x: Var) -> list[Size]:
    """The sizes of all axes of ``x``."""
    return [size_of(x, axis) for axis in range(x.rank)]


def element(vector: Var, index: int) -> Var:
    """Element ``index`` of an int32 vector, as vector of one element."""
    piece, offset = _piece(vector, index)
    if known_dimension(piece.shape[0]) == 1:
        return piece
    return builder().slice_by_index(x=piece, begin=[offset], end=[offset + 1])


def _piece(vector: Var, index: int) -> tuple[Var, int]:
    """The part of a concatenation that holds the element, and where: it is not taken apart again."""
    if vector.op is None or vector.op.op_type != "concat":
        return vector, index
    offset = index
    for part in vector.op.values:
        length = known_dimension(part.shape[0])
        if length is None:
            return vector, index
        if offset < length:
            return _piece(part, offset)
        offset -= length
    return vector, index


def elements(node: OnnxNode, index: int, what: str) -> list[Size]:
    """The elements of the 1-D (or scalar) integer input ``index``, those that are known as numbers."""
    known = node.constant(index)
    if known is not None:
        return [int(number) for number in known.reshape(-1)]
    vector = node.input(index)
    if vector.rank == 0:
        vector = builder().expand_dims(x=vector, axes=[0])
    length = known_dimension(vector.shape[0]) if vector.rank == 1 else None
    if length is None:
        node.refuse(f"the number of its {what} is only known at run time")
    return [_element_value(vector, position) for position in range(length)]


def _element_value(vector: Var, position: int) -> Size:
    if vector.sym_val is not None:
        number = known_dimension(np.asarray(vector.sym_val)[position])
        if number is not None:
            return number
    return element(vector, position)


def vector_of(sizes: Sequence[Size]) -> Any:
    """The sizes as int32 vector: a numpy array when all are numbers, else a MIL variable."""
    if all(isinstance(size, int) for size in sizes):
        return int32(np.array(sizes, np.int64))
    parts = _joined(sizes)
    return parts[0] if len(parts) == 1 else builder().concat(values=parts, axis=0)


def _joined(sizes: Sequence[Size]) -> list[Any]:
    parts: list[Any] = []
    for are_numbers, group in groupby(sizes, key=lambda size: isinstance(size, int)):
        each = list(group)
        parts += [int32(np.array(each, np.int64))] if are_numbers else _runs(each)
    return parts


def _runs(sizes: Sequence[Var]) -> list[Var]:
    """The sizes; neighbours that are neighbours in a tensor's shape as well in one slice of it."""
    runs: list[list[Var]] = []
    for size in sizes:
        if runs and _follows(runs[-1][-1], size):
            runs[-1].append(size)
        else:
            runs.append([size])
    return [run[0] if len(run) == 1 else _slice_of_shape(run) for run in runs]


def _slice_of_shape(run: Sequence[Var]) -> Var:
    tensor, first = _origin(run[0])
    mb = builder()
    return mb.slice_by_index(x=mb.shape(x=tensor), begin=[first], end=[first + len(run)])


def _follows(size: Var, other: Var) -> bool:
    tensor, axis = _origin(size)
    return tensor is not None and _origin(other) == (tensor, axis + 1)


def _origin(size: Var) -> tuple[Var | None, int]:
    """The tensor and axis that the size was read from; None when it was computed otherwise."""
    read = size.op
    if read is None or read.op_type != "slice_by_index" or read.begin.val is None:
        return None, 0
    shape = read.x.op
    if shape is None or shape.op_type != "shape":
        return None, 0
    return shape.x, int(read.begin.val[0])


def scalar(size: Size) -> Any:
    """The size as int32 scalar."""
    if isinstance(size, int):
        return np.int32(size)
    # gather and not squeeze: MIL's type inference follows symbols through it
    return builder().gather(x=size, indices=np.int32(0), axis=0)


def same(a: Size, b: Size) -> bool:
    """Whether both are known to be the same size: equal numbers or the same symbol."""
    if isinstance(a, int) or isinstance(b, int):
        return bool(isinstance(a, int) and isinstance(b, int) and a == b)
    return a is b or (_symbol(a) is not None and _symbol(a) == _symbol(b))


def _symbol(size: Var) -> Any:
    return None if size.sym_val is None else np.asarray(size.sym_val).reshape(-1)[0]


def plus(a: Size, b: Size) -> Size:
    """The sum a + b."""
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    if isinstance(a, int):
        return plus(b, a)
    return a if isinstance(b, int) and b == 0 else builder().add(x=a, y=_operand(b))


def minus(a: Size, b: Size) -> Size:
    """The difference a - b."""
    if isinstance(b, int):
        return plus(a, -b)
    return builder().sub(x=_operand(a), y=b)


def times(a: Size, b: Size) -> Size:
    """The product a · b."""
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    if isinstance(a, int):
        return times(b, a)
    return a if isinstance(b, int) and b == 1 else builder().mul(x=a, y=_operand(b))


def quotient(a: Size, b: Size) -> Size:
    """The quotient a / b of positive sizes, rounded down."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    return builder().floor_div(x=_operand(a), y=_operand(b))


def smaller(a: Size, b: Size) -> Size:
    """The smaller of a and b."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    return builder().minimum(x=_operand(a), y=_operand(b))


def larger(a: Size, b: Size) -> Size:
    """The larger of a and b."""
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    return builder().maximum(x=_operand(a), y=_operand(b))


def _operand(size: Size) -> Any:
    return int32(np.array([size], np.int64)) if isinstance(size, int) else size


def nonnegative(x: Var, _depth: int = 0) -> bool:
    """Whether how ``x`` is computed shows that none of its elements is negative."""
    if x.val is not None:
        return bool(np.all(np.asarray(x.val) >= 0))
    if x.op is None or _depth > _LONGEST_CHAIN:
        return False
    if x.op.op_type in _NEVER_NEGATIVE:
        return True
    if x.op.op_type == "maximum":
        return nonnegative(x.op.x, _depth + 1) or nonnegative(x.op.y, _depth + 1)
    parameters = _KEEP_SIGN.get(x.op.op_type)
    if parameters is None:
        return False
    sources = [source for name in parameters for source in _as_list(x.op.inputs[name])]
    return all(nonnegative(source, _depth + 1) for source in sources)


def from_shapes(x: Var, _depth: int = 0) -> bool:
    """Whether ``x`` is computed from constants and shapes alone, not from the model's data."""
    if x.val is not None:
        return True
    if x.op is None or _depth > _LONGEST_CHAIN:
        return False
    if x.op.op_type == "shape":
        return True
    sources = [s for given in x.op.inputs.values() if given is not None for s in _as_list(given)]
    return all(from_shapes(source, _depth + 1) for source in sources)


def _as_list(given: Any) -> list[Any]:
    return list(given) if isinstance(given, (list, tuple)) else [given]


def wrapped(index: Var, size: Any) -> Var:
    """``index``, negative ones counted from the end; since iOS 17 MIL's gather and scatter take none.

    ``size`` broadcasts with ``index``.
    """
    if nonnegative(index):
        return index
    mb = builder()
    return mb.select(cond=mb.less(x=index, y=np.int32(0)), a=mb.add(x=index, y=size), b=index)
