"""Pad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.data_movement import movable, normalized_axis
from edgeq.targets.coreml.ops.dimensions import Size, minus, size_of, sizes_of, vector_of
from edgeq.targets.coreml.ops.elementwise import FLOATS
from edgeq.targets.coreml.ops.slicing import Window, windowed
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler

# ONNX mode → numpy's, MIL's. MIL has no wrap.
_NUMPY_MODES: dict[str, Any] = {"edge": "edge", "reflect": "reflect", "wrap": "wrap"}
_MIL_MODES = {"edge": "replicate", "reflect": "reflect"}
# Core ML pads by other values than a constant in the last two axes only.
_MIL_AXES = 2


@dataclass(frozen=True)
class Padding:
    """Elements added before and after the elements of one axis."""

    axis: int
    before: int
    after: int


def pad(node: OnnxNode) -> Var:
    """Pad: negative pads crop."""
    x = movable(node)
    paddings = _paddings(node, x.rank)
    mode = node.attribute("mode", "constant")
    x = _cropped(node, x, paddings, mode)
    added = [
        Padding(p.axis, max(p.before, 0), max(p.after, 0)) for p in paddings if max(p.before, p.after) > 0
    ]
    value = _value(node)
    if not added:
        return x
    if mode == "constant":
        return _constant(node, x, added, value)
    if mode not in _NUMPY_MODES:
        node.refuse(f"its mode {mode!r} is unknown")
    return _mirrored(node, x, added, mode)


def _paddings(node: OnnxNode, rank: int) -> list[Padding]:
    pads = node.known(1, "pads").tolist() if node.has_input(1) else node.attribute("pads")
    given = node.known(3, "axes").tolist() if node.has_input(3) else range(rank)
    axes = [normalized_axis(node, axis, rank) for axis in given]
    if len(pads) != 2 * len(axes) or len(set(axes)) < len(axes):
        node.refuse("its pads and axes do not fit together")
    half = len(axes)
    return [Padding(axis, int(pads[i]), int(pads[half + i])) for i, axis in enumerate(axes)]


def _cropped(node: OnnxNode, x: Var, paddings: Sequence[Padding], mode: str) -> Var:
    negative = [p for p in paddings if min(p.before, p.after) < 0]
    if negative and mode != "constant":
        node.refuse(f"negative pads in mode {mode!r} are not defined")
    return windowed(x, [_crop(node, x, p) for p in negative])


def _crop(node: OnnxNode, x: Var, padding: Padding) -> Window:
    size = size_of(x, padding.axis)
    begin = max(-padding.before, 0) or None
    end = minus(size, max(-padding.after, 0))
    if isinstance(end, int) and end <= (begin or 0):
        node.refuse("it crops everything, and Core ML has no empty tensors")
    return Window(padding.axis, begin, end if padding.after < 0 else None, 1)


def _value(node: OnnxNode) -> Var | np.generic | None:
    """What constant padding consists of; None for 0."""
    if not node.has_input(2):
        given = node.attribute("value")
        return None if given is None else np.float32(given)
    known = node.constant(2)
    if known is None:
        return node.input(2)
    return None if not known.any() else known.reshape(-1)[0]


def _constant(node: OnnxNode, x: Var, paddings: Sequence[Padding], value: Any) -> Var:
    if node.dtype(0) in FLOATS and (value is None or isinstance(value, np.generic)):
        dtype = node.dtype(0).numpy()
        amounts = _amounts(x.rank, paddings)
        return builder().pad(x=x, pad=amounts, mode="constant", constant_val=dtype.type(value or 0))
    for padding in paddings:
        x = _between_blocks(node, x, padding, _scalar(node, value))
    return x


def _amounts(rank: int, paddings: Sequence[Padding]) -> list[int]:
    by_axis = {p.axis: (p.before, p.after) for p in paddings}
    return [amount for axis in range(rank) for amount in by_axis.get(axis, (0, 0))]


def _scalar(node: OnnxNode, value: Any) -> Var:
    """The value as MIL variable of the dtype of the data."""
    if value is None or isinstance(value, np.generic):
        return node.lowering.const(np.asarray(value or 0, node.dtype(0).numpy()))
    return builder().squeeze(x=value, axes=[0]) if value.rank else value


def _between_blocks(node: OnnxNode, x: Var, padding: Padding, value: Var) -> Var:
    """``x`` with blocks of ``value`` around it: MIL's pad takes floats and constants only."""
    mb = builder()
    one = mb.expand_dims(x=value, axes=list(range(x.rank)))
    parts: list[Var] = []
    for amount in (padding.before, padding.after):
        sizes: list[Size] = sizes_of(x)
        sizes[padding.axis] = amount
        parts.append(mb.tile(x=one, reps=vector_of(sizes)) if amount else None)
    around = [parts[0], x, parts[1]]
    return mb.concat(values=[part for part in around if part is not None], axis=padding.axis)


def _mirrored(node: OnnxNode, x: Var, paddings: Sequence[Padding], mode: str) -> Var:
    native = [p for p in paddings if _is_native(node, x, p, mode)]
    for padding in paddings:
        if padding not in native:
            x = _gathered(node, x, padding, mode)
    if not native:
        return x
    return builder().pad(x=x, pad=_amounts(x.rank, native), mode=_MIL_MODES[mode])


def _is_native(node: OnnxNode, x: Var, padding: Padding, mode: str) -> bool:
    """Whether MIL's pad does it: floats, the last two axes, and a reflection that stays in the tensor."""
    if mode not in _MIL_MODES or node.dtype(0) not in FLOATS or padding.axis < x.rank - _MIL_AXES:
        return False
    size = node.shape(0)[padding.axis]
    most = max(padding.before, padding.after)
    return size is None or most < size or (mode == "edge" and most <= size)


def _gathered(node: OnnxNode, x: Var, padding: Padding, mode: str) -> Var:
    mb = builder()
    size = node.shape(0)[padding.axis]
    if size is None:
        node.refuse(f"it pads the dynamic axis {padding.axis} in mode {mode!r}", "Fix that dimension.")
    source = np.pad(np.arange(size), (padding.before, padding.after), mode=_NUMPY_MODES[mode])
    is_bool = node.dtype(0) == ir.DataType.BOOL
    numbers = mb.cast(x=x, dtype="int32") if is_bool else x
    moved = mb.gather(x=numbers, indices=source.astype(np.int32), axis=padding.axis)
    return mb.cast(x=moved, dtype="bool") if is_bool else moved


HANDLERS: dict[str, Handler] = {"Pad": pad}
