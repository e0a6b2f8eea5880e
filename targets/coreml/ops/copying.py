"""Ops that join, split and repeat tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.data_movement import movable, normalized_axis
from edgeq.targets.coreml.ops.dimensions import (
    Size,
    elements,
    larger,
    plus,
    quotient,
    same,
    size_of,
    sizes_of,
    times,
    vector_of,
)
from edgeq.targets.coreml.ops.slicing import Window, windowed
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler


def concat(node: OnnxNode) -> Var:
    """Concat; constants without elements are left out."""
    axis = node.attribute("axis", 1)  # 1 is the default of opset 1
    parts = [movable(node, index) for index in range(node.input_count) if not _is_empty(node, index)]
    axis = normalized_axis(node, axis, parts[0].rank)
    return parts[0] if len(parts) == 1 else builder().concat(values=parts, axis=axis)


def _is_empty(node: OnnxNode, index: int) -> bool:
    known = node.constant(index)
    return known is not None and known.size == 0


def split(node: OnnxNode) -> list[Var | None]:
    """Split into given sizes, or into equal parts of which the last may be smaller."""
    x = movable(node)
    axis = normalized_axis(node, node.attribute("axis", 0), x.rank)
    size = size_of(x, axis)
    count = node.attribute("num_outputs", node.output_count)
    if count == 1:
        return [x]
    sizes = _split_sizes(node) or (_chunks(size, count) if isinstance(size, int) else None)
    if sizes is None:
        return [windowed(x, [part]) for part in _parts(size, count, axis)]
    if min(sizes) <= 0:
        node.refuse("one of its parts is empty, and Core ML has no empty tensors")
    return list(builder().split(x=x, split_sizes=sizes, axis=axis))


def _split_sizes(node: OnnxNode) -> list[int] | None:
    """The sizes of the parts, an attribute until opset 12 and an input since; None when left out."""
    if node.has_input(1):
        return [int(size) for size in node.known(1, "split sizes")]
    sizes = node.attribute("split")
    return None if sizes is None else list(sizes)


def _parts(size: Size, count: int, axis: int) -> list[Window]:
    """Equal parts of a size that is only known at run time."""
    chunk = quotient(plus(size, count - 1), count)
    ends = [times(chunk, part + 1) for part in range(count - 1)]
    return [Window(axis, begin, end, 1) for begin, end in zip([None, *ends], [*ends, None], strict=True)]


def _chunks(size: int, count: int) -> list[int]:
    chunk = -(-size // count)
    return [max(0, min(chunk, size - index * chunk)) for index in range(count)]


def expand(node: OnnxNode) -> Var:
    """Expand: broadcasting in both directions."""
    x = movable(node)
    targets = elements(node, 1, "target sizes")
    if any(isinstance(target, int) and target <= 0 for target in targets):
        node.refuse("one of its target sizes is not positive, and Core ML has no empty tensors")
    x = _with_rank(x, len(targets))
    targets = [1] * (x.rank - len(targets)) + targets
    repeats = [_expanding(size, target) for size, target in zip(sizes_of(x), targets, strict=True)]
    return _repeated(node, x, repeats)


def _with_rank(x: Var, rank: int) -> Var:
    missing = rank - x.rank
    return builder().expand_dims(x=x, axes=list(range(missing))) if missing > 0 else x


def _expanding(size: Size, target: Size) -> Size:
    """How often ``size`` is repeated to be broadcast with ``target``: they are equal or one of them is 1."""
    if isinstance(target, int) and target == 1:
        return 1
    if isinstance(size, int):
        return target if size == 1 else 1
    if same(size, target):
        return 1
    repeats = quotient(target, size)
    return repeats if isinstance(target, int) else larger(repeats, 1)


def tile(node: OnnxNode) -> Var:
    """Tile: every axis repeated."""
    x = movable(node)
    repeats = elements(node, 1, "repeats")
    if len(repeats) != x.rank:
        node.refuse(f"it has {len(repeats)} repeats for rank {x.rank}")
    return _repeated(node, x, repeats)


def _repeated(node: OnnxNode, x: Var, repeats: Sequence[Any]) -> Var:
    if any(isinstance(count, int) and count <= 0 for count in repeats):
        node.refuse("its result is empty, and Core ML has no empty tensors")
    if all(isinstance(count, int) and count == 1 for count in repeats):
        return x
    return builder().tile(x=x, reps=vector_of(repeats))


HANDLERS: dict[str, Handler] = {"Concat": concat, "Expand": expand, "Split": split, "Tile": tile}
