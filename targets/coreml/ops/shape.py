"""Ops on shapes: reading them, and giving the same numbers another one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.copying import HANDLERS as COPYING
from edgeq.targets.coreml.ops.data_movement import movable, normalized_axis
from edgeq.targets.coreml.ops.dimensions import (
    Size,
    elements,
    from_shapes,
    scalar,
    size_of,
    sizes_of,
    times,
    vector_of,
)
from edgeq.targets.coreml.ops.generating import HANDLERS as GENERATING
from edgeq.targets.coreml.ops.high_rank import held_flat, input_sizes, is_high, transposed_flat
from edgeq.targets.coreml.ops.padding import HANDLERS as PADDING
from edgeq.targets.coreml.ops.slicing import HANDLERS as SLICING
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler


def shape(node: OnnxNode) -> Var | Array:
    """Shape: the sizes from axis ``start`` to ``end``; a constant when all of them are."""
    sizes = node.shape(0)
    start, stop, _ = slice(node.attribute("start", 0), node.attribute("end")).indices(len(sizes))
    wanted = sizes[start:stop]
    if None not in wanted:
        node.constant(0)  # the numbers are not needed
        return np.array(wanted, np.int64)
    found = builder().shape(x=movable(node, small=True))
    if len(wanted) == len(sizes):
        return found
    return builder().slice_by_index(x=found, begin=[start], end=[stop])


def size(node: OnnxNode) -> Var | Array:
    """Size: the number of elements, int64 scalar."""
    sizes = node.shape(0)
    if None not in sizes:
        node.constant(0)
        return np.array(math.prod(s for s in sizes if s is not None), np.int64)
    return builder().reduce_prod(x=builder().shape(x=movable(node, small=True)), axes=[0], keep_dims=False)


def reshape(node: OnnxNode) -> Var:
    """Reshape: 0 copies a size, -1 is what is left."""
    x = movable(node, small=True)
    targets = elements(node, 1, "target sizes")
    if node.attribute("allowzero", 0):
        if any(isinstance(t, int) and t == 0 for t in targets) or not _only_shapes(node, 1):
            node.refuse("allowzero=1 makes or may make an empty tensor, and Core ML has none")
    elif 0 in targets or not _only_shapes(node, 1):
        sizes = input_sizes(node, x)
        targets = [_copied(node, sizes, axis, target) for axis, target in enumerate(targets)]
    return x if held_flat(node) else reshaped(node, x, targets)


def _only_shapes(node: OnnxNode, index: int) -> bool:
    return node.constant(index) is not None or from_shapes(node.input(index))


def _copied(node: OnnxNode, sizes: Sequence[Size], axis: int, target: Size) -> Size:
    """The target size; where it is 0 the size before. Sizes computed from shapes are not 0."""
    if isinstance(target, int):
        if target != 0:
            return target
        if axis >= len(sizes):
            node.refuse(f"it copies the size of axis {axis} of a tensor of rank {len(sizes)}")
        return sizes[axis]
    if from_shapes(target) or axis >= len(sizes):
        return target
    mb = builder()
    zero = mb.equal(x=target, y=np.zeros(1, np.int32))
    return mb.select(cond=zero, a=_vector(sizes[axis]), b=target)


def _vector(size: Size) -> Any:
    return vector_of([size])


def reshaped(node: OnnxNode, x: Var, targets: Sequence[Size]) -> Var:
    """``x`` in the shape ``targets``, one of which may be -1."""
    mb = builder()
    targets = list(targets)
    unknown = [axis for axis, target in enumerate(targets) if not isinstance(target, int)]
    if not targets:
        return x if x.rank == 0 else mb.squeeze(x=x, axes=list(range(x.rank)))
    if x.rank == 0:
        return unsqueezed(x, range(len(targets)))
    if len(unknown) == 1 and -1 not in targets:
        targets[unknown[0]] = -1
    return mb.reshape(x=x, shape=vector_of(targets))


def flatten(node: OnnxNode) -> Var:
    """Flatten: a matrix of the axes before ``axis`` by those from it."""
    x = movable(node, small=True)
    axis = node.attribute("axis", 1)
    if not -x.rank <= axis <= x.rank:
        node.refuse(f"its axis {axis} does not exist in rank {x.rank}")
    axis = axis + x.rank if axis < 0 else axis
    before, after = (_known_product(part) for part in (node.shape(0)[:axis], node.shape(0)[axis:]))
    if before is not None:
        return reshaped(node, x, [before, -1])
    if after is not None:
        return reshaped(node, x, [-1, after])
    product: Size = 1
    for each in range(axis):
        product = times(product, size_of(x, each))
    return reshaped(node, x, [product, -1])


def _known_product(sizes: Sequence[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None


def transpose(node: OnnxNode) -> Var:
    """Transpose: axes in the order ``perm``, reversed by default."""
    x = movable(node, small=True)
    if is_high(node.node.inputs[0]):
        return transposed_flat(node, x)
    perm = node.attribute("perm", list(range(x.rank))[::-1])
    if list(perm) == list(range(x.rank)):
        return x
    return builder().transpose(x=x, perm=perm)


def _axes(node: OnnxNode, rank: int) -> list[int] | None:
    """The axes, an attribute until opset 12 and an input since; None when they are left out."""
    if node.has_input(1):
        axes = [int(axis) for axis in node.known(1, "axes").reshape(-1)]
    else:
        axes = node.attribute("axes")
        if axes is None:
            return None
    return sorted(normalized_axis(node, axis, rank) for axis in axes)


def squeeze(node: OnnxNode) -> Var:
    """Squeeze: drop axes of size 1."""
    x = movable(node, small=True)
    sizes = node.shape(0)
    axes = _axes(node, x.rank)
    if axes is None:
        if None in sizes:
            node.refuse("it has no axes and a dynamic dimension may be 1", "Give Squeeze its axes.")
        axes = [axis for axis, size in enumerate(sizes) if size == 1]
    wide = [axis for axis in axes if sizes[axis] not in (1, None)]
    if wide:
        node.refuse(f"axis {wide[0]} has size {sizes[wide[0]]}, not 1")
    return _without(node, x, axes)


def _without(node: OnnxNode, x: Var, axes: Sequence[int]) -> Var:
    if not axes:
        return x
    if x.rank == 1 and node.dtype(0) in (ir.DataType.INT64, ir.DataType.INT32):
        return scalar(x)
    if all(size == 1 for axis, size in enumerate(node.shape(0)) if axis in axes):
        return builder().squeeze(x=x, axes=list(axes))
    # MIL squeezes no dynamic dimension, even when it is 1 at run time
    return reshaped(node, x, [size for axis, size in enumerate(sizes_of(x)) if axis not in axes])


def unsqueeze(node: OnnxNode) -> Var:
    """Unsqueeze: new axes of size 1, counted in the result."""
    x = movable(node, small=True)
    given = node.known(1, "axes") if node.has_input(1) else node.attribute("axes", [])
    rank = x.rank + len(given)
    axes = sorted(normalized_axis(node, int(axis), rank) for axis in given)
    if len(set(axes)) < len(axes):
        node.refuse(f"its axes {axes} repeat")
    return unsqueezed(x, axes) if axes else x


def unsqueezed(x: Var, axes: Sequence[int]) -> Var:
    """``x`` with new axes of size 1 at ``axes`` of the result."""
    mb = builder()
    if x.rank == 0 and x.sym_val is not None:
        # MIL's type inference follows symbols through reshape, not through expand_dims
        return mb.reshape(x=x, shape=[1] * len(axes))
    return mb.expand_dims(x=x, axes=list(axes))


def identity(node: OnnxNode) -> Var | Array:
    """Identity."""
    known = node.constant(0)
    return node.input(0) if known is None else known


def dropout(node: OnnxNode) -> list[Var | Array | None]:
    """Dropout at inference: the input, and a mask that keeps everything."""
    node.constant(1)  # the ratio matters in training only
    node.constant(2)
    node.attribute("ratio")
    node.attribute("seed")
    if node.has_input(2) and bool(node.known(2, "training_mode")) and _ratio(node) != 0:
        node.refuse("training_mode is on", "Export the model in evaluation mode.")
    return [identity(node), _mask(node) if node.wants(1) else None]


def _ratio(node: OnnxNode) -> float:
    found = node.constant(1)
    if found is not None:
        return float(found.reshape(-1)[0])
    return float("nan") if node.has_input(1) else 0.5


def _mask(node: OnnxNode) -> Var | Array:
    if node.output_dtype(1) != ir.DataType.BOOL:
        node.refuse(
            "its mask output is only defined since opset 10", "Remove the output or update the opset."
        )
    x = node.input(0)
    sizes = sizes_of(x)
    if all(isinstance(size, int) for size in sizes):
        return np.ones(sizes, bool)
    return builder().fill(shape=vector_of(sizes), value=True)


_CONSTANT_FORMS = {
    "value": None,
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def constant(node: OnnxNode) -> Array:
    """Constant: its value, whichever attribute holds it."""
    name = next(iter(node.node.attributes), "value")
    if name not in _CONSTANT_FORMS:
        node.refuse(f"its value is given as {name}, and only dense numbers are lowered")
    value: Array = np.asarray(node.attribute(name), _CONSTANT_FORMS[name])
    return value


HANDLERS: dict[str, Handler] = {
    "Constant": constant,
    "Dropout": dropout,
    "Flatten": flatten,
    "Identity": identity,
    "Reshape": reshape,
    "Shape": shape,
    "Size": size,
    "Squeeze": squeeze,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
    **COPYING,
    **GENERATING,
    **PADDING,
    **SLICING,
}
