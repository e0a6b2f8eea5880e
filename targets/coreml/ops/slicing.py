"""Slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.data_movement import movable, normalized_axis
from edgeq.targets.coreml.ops.dimensions import (
    Size,
    elements,
    larger,
    minus,
    nonnegative,
    plus,
    same,
    size_of,
    smaller,
    vector_of,
)
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler

# Beyond them a bound means "the end" or "the start" of any tensor.
_LAST = int(np.iinfo(np.int32).max)
_FIRST = int(np.iinfo(np.int32).min)


@dataclass(frozen=True)
class Window:
    """``begin``, ``begin + step``, … before ``end`` along one axis; a bound that is None is the axis' own."""

    axis: int
    begin: Size | None
    end: Size | None
    step: int

    @property
    def is_static(self) -> bool:
        """Whether the bounds are numbers."""
        return all(bound is None or isinstance(bound, int) for bound in (self.begin, self.end))

    @property
    def is_whole(self) -> bool:
        """Whether it takes everything."""
        return self.begin is None and self.end is None and self.step == 1


def slice_(node: OnnxNode) -> Var:
    """Slice: bounds clamped to the tensor, negative ones from the end, negative steps backwards."""
    x = movable(node, small=True)
    starts, ends, axes, steps = _bounds(node, x.rank)
    backwards = [axis for axis, step in zip(axes, steps, strict=True) if step < 0]
    windows = [
        window(size_of(x, axis), axis, start, end, step)
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    ]
    if any(_is_empty(window) for window in windows):
        node.refuse("its result is empty, and Core ML has no empty tensors")
    if backwards:
        # MIL's masks do not say what they mean for a negative stride
        x = builder().reverse(x=x, axes=backwards)
    # numbers first: one bound that is only known at run time hides all sizes from MIL's type inference
    x = windowed(x, [w for w in windows if w.is_static])
    return windowed(x, [w for w in windows if not w.is_static])


def _bounds(node: OnnxNode, rank: int) -> tuple[list[Size], list[Size], list[int], list[int]]:
    if not node.has_input(1):  # opset 1 to 9
        starts, ends = list(node.attribute("starts")), list(node.attribute("ends"))
        axes, steps = node.attribute("axes"), None
    else:
        starts, ends = elements(node, 1, "starts"), elements(node, 2, "ends")
        axes = node.known(3, "axes").tolist() if node.has_input(3) else None
        steps = node.known(4, "steps").tolist() if node.has_input(4) else None
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    axes = [normalized_axis(node, axis, rank) for axis in axes]
    if 0 in steps or len(set(axes)) < len(axes) or not len(starts) == len(ends) == len(axes) == len(steps):
        node.refuse("its starts, ends, axes and steps do not fit together")
    return starts, ends, axes, [max(-_LAST, min(step, _LAST)) for step in steps]


def window(size: Size, axis: int, start: Size, end: Size, step: int) -> Window:
    """What ONNX takes of an axis of ``size``; for a negative step the window in the reversed axis."""
    if step > 0:
        return Window(axis, _begin(start, size), _end(end, size), step)
    return _reversed_window(axis, start, end, step, size)


def _begin(start: Size, size: Size) -> Size | None:
    if isinstance(start, int) and (start == 0 or start <= _FIRST):
        return None
    if isinstance(start, int) and start >= -1 and not isinstance(size, int):
        return min(start, _LAST)  # MIL counts -1 from the end, and beyond it nothing would be left
    return _clamped(_from_front(start, size), 0, size) or None


def _end(end: Size, size: Size) -> Size | None:
    if same(end, size) or (isinstance(end, int) and end >= _LAST):
        return None
    if isinstance(end, int) and end < 0 and not isinstance(size, int):
        return max(end, _FIRST)  # MIL counts it from the end, and before the start nothing would be left
    clamped = _clamped(_from_front(end, size), 0, size)
    return None if same(clamped, size) else clamped


def _reversed_window(axis: int, start: Size, end: Size, step: int, size: Size) -> Window:
    """The window in the reversed axis: index i is at size - 1 - i there."""
    last = minus(size, 1)
    begin: Size | None = None
    if not _is_last(start):
        begin = minus(last, _clamped(_from_front(start, size), 0, last))
    stop: Size | None = None
    if not (isinstance(end, int) and end <= _FIRST):
        stop = minus(last, _clamped(_from_front(end, size), -1, last))
    begin = None if isinstance(begin, int) and begin == 0 else begin
    return Window(axis, begin, None if stop is None or same(stop, size) else stop, -step)


def _is_last(start: Size) -> bool:
    return isinstance(start, int) and (start == -1 or start >= _LAST)


def _from_front(bound: Size, size: Size) -> Size:
    """Negative bounds count from the end."""
    if isinstance(bound, int):
        return bound if bound >= 0 else plus(size, max(bound, _FIRST))
    if nonnegative(bound):
        return bound
    mb = builder()
    return mb.select(cond=mb.less(x=bound, y=np.zeros(1, np.int32)), a=plus(bound, size), b=bound)


def _clamped(bound: Size, low: int, high: Size) -> Size:
    if isinstance(bound, int) and bound >= low:
        return smaller(bound, high)
    if not isinstance(bound, int) and low <= 0 and nonnegative(bound):
        return smaller(bound, high)
    return larger(smaller(bound, high), low)


def _is_empty(window: Window) -> bool:
    begin = 0 if window.begin is None else window.begin
    if not isinstance(begin, int) or not isinstance(window.end, int):
        return False
    return begin >= window.end if (begin >= 0) == (window.end >= 0) else False


def windowed(x: Var, windows: Sequence[Window]) -> Var:
    """``x`` within the windows, in one MIL op."""
    chosen = {window.axis: window for window in windows if not window.is_whole}
    if not chosen:
        return x
    whole = Window(0, None, None, 1)
    each = [chosen.get(axis, whole) for axis in range(x.rank)]
    return builder().slice_by_index(
        x=x,
        begin=vector_of([0 if w.begin is None else w.begin for w in each]),
        end=vector_of([0 if w.end is None else w.end for w in each]),
        stride=[w.step for w in each],
        begin_mask=[w.begin is None for w in each],
        end_mask=[w.end is None for w in each],
    )


HANDLERS: dict[str, Handler] = {"Slice": slice_}
