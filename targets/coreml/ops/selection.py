"""ArgMax, ArgMin and TopK."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.data_movement import normalized_axis
from edgeq.targets.coreml.ops.elementwise import INTEGERS, NUMBERS
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler


def arg_max(node: OnnxNode) -> Var:
    """ArgMax: the position of the largest element."""
    return _position(node, "max")


def arg_min(node: OnnxNode) -> Var:
    """ArgMin: the position of the smallest element."""
    return _position(node, "min")


def _position(node: OnnxNode, extreme: str) -> Var:
    """Floats by MIL's own op: equal ones are rare, and MIL's value inference takes the first as ONNX does."""
    node.require_dtype(NUMBERS, 0)
    axis = _axis(node, 0)
    keep, last = bool(node.attribute("keepdims", 1)), bool(node.attribute("select_last_index", 0))
    if node.dtype(0) in INTEGERS:
        return _position_among_ties(node, extreme, axis, keep, last)
    mb, x = builder(), node.input(0)
    find = getattr(mb, f"reduce_arg{extreme}")
    if not last:
        return find(x=x, axis=axis, keep_dims=keep)
    size = node.shape(0)[axis]
    if size is None:
        node.refuse("select_last_index=1 on a dynamic axis", "Fix the input's size.")
    reversed_x = mb.reverse(x=x, axes=[axis])
    return mb.sub(x=np.int32(size - 1), y=find(x=reversed_x, axis=axis, keep_dims=keep))


def _position_among_ties(node: OnnxNode, extreme: str, axis: int, keep: bool, last: bool) -> Var:
    """The first or last position that holds the extreme.

    MIL promises no order among equal elements, and integers have them: masks, token ids (CLIP finds the end
    of its text as the first of many).
    """
    mb, x = builder(), node.input(0)
    best = getattr(mb, f"reduce_{extreme}")(x=x, axes=[axis], keep_dims=True)
    is_best = mb.cast(x=mb.equal(x=x, y=best), dtype="int32")
    size = _size(node, axis)
    places = mb.range_1d(start=np.int32(0), end=size, step=np.int32(1))
    others = [place for place in range(node.rank(0)) if place != axis]
    places = mb.expand_dims(x=places, axes=others) if others else places
    if last:
        ranked = mb.mul(x=is_best, y=places)
        return mb.reduce_max(x=ranked, axes=[axis], keep_dims=keep)
    ranked = mb.mul(x=is_best, y=mb.sub(x=size, y=places))
    return mb.sub(x=size, y=mb.reduce_max(x=ranked, axes=[axis], keep_dims=keep))


def _size(node: OnnxNode, axis: int) -> Var:
    size = node.shape(0)[axis]
    if size is not None:
        return np.int32(size)
    mb = builder()
    sizes = mb.shape(x=node.input(0))
    return mb.squeeze(x=mb.slice_by_size(x=sizes, begin=[axis], size=[1]), axes=[0])


def top_k(node: OnnxNode) -> list[Var]:
    """TopK: MIL ``topk``, always sorted. Which of equal elements comes first is not promised."""
    node.require_dtype(NUMBERS, 0)
    axis, k = _axis(node, -1), int(node.known(1, "k").ravel()[0])
    node.attribute("sorted")  # unsorted promises nothing, so sorted is right
    ascending = not node.attribute("largest", 1)
    size = node.shape(0)[axis]
    if k < 1 or (size is not None and k > size):
        node.refuse(f"k is {k} on an axis of size {size}")
    return list(builder().topk(x=node.input(0), k=k, axis=axis, ascending=ascending))


def _axis(node: OnnxNode, default: int) -> int:
    rank = node.rank(0)
    if rank == 0:
        node.refuse("its input is a scalar")
    return normalized_axis(node, int(node.attribute("axis", default)), rank)


HANDLERS: dict[str, Handler] = {"ArgMax": arg_max, "ArgMin": arg_min, "TopK": top_k}
