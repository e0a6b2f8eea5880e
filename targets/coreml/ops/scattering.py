"""Scattering: a copy of the data with elements replaced, or combined with, updates at indices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.data_movement import normalized_axis, numeric, restored
from edgeq.targets.coreml.ops.dimensions import same, size_of
from edgeq.targets.coreml.ops.indexing import index_tuples, indices_along
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler

# ONNX reduction → MIL mode.
_MODES = {"none": "update", "add": "add", "mul": "mul", "min": "min", "max": "max"}


def _mode(node: OnnxNode) -> str:
    reduction = node.attribute("reduction", "none")
    if reduction not in _MODES:
        node.refuse(f"its reduction {reduction!r} is unknown")
    if reduction != "none" and node.dtype(0) == ir.DataType.BOOL:
        node.refuse(f"its reduction {reduction!r} is on bool")
    return _MODES[reduction]


def scatter_nd(node: OnnxNode) -> Var:
    """ScatterND: slices at index tuples. Without reduction ONNX leaves open which of equal tuples wins."""
    data, updates, mode = numeric(node, 0), numeric(node, 2), _mode(node)
    indices = index_tuples(node, data)
    mb = builder()
    if indices.rank == 1:
        indices, updates = mb.expand_dims(x=indices, axes=[0]), mb.expand_dims(x=updates, axes=[0])
    return restored(node, mb.scatter_nd(data=data, indices=indices, updates=updates, mode=mode))


def scatter_elements(node: OnnxNode) -> Var:
    """ScatterElements: one element along ``axis`` per index."""
    data, updates, mode = numeric(node, 0), numeric(node, 2), _mode(node)
    axis = normalized_axis(node, node.attribute("axis", 0), data.rank)
    indices = indices_along(node, data, axis)
    mb = builder()
    if _covers(data, node.input(1), axis):
        result = mb.scatter_along_axis(data=data, indices=indices, updates=updates, axis=axis, mode=mode)
        return restored(node, result)
    tuples = _full_tuples(node, indices, axis)
    flat = mb.reshape(x=updates, shape=[-1])
    return restored(node, mb.scatter_nd(data=data, indices=tuples, updates=flat, mode=mode))


def _covers(data: Var, indices: Var, axis: int) -> bool:
    """Whether the indices are as large as the data off ``axis``, which MIL wants and ONNX does not."""
    return all(same(size_of(data, each), size_of(indices, each)) for each in range(data.rank) if each != axis)


def _full_tuples(node: OnnxNode, indices: Var, axis: int) -> Var:
    """Indices along ``axis`` as tuples of indices into every axis, [N, rank]."""
    shape = node.shape(1)
    known = [size for size in shape if size is not None]
    if len(known) < len(shape):
        node.refuse("its indices have a dynamic shape that may be smaller than the data's")
    grid = np.indices(known, np.int32).reshape(len(known), math.prod(known)).T
    mb = builder()
    along = mb.reshape(x=indices, shape=[-1, 1])
    parts = [grid[:, :axis], along, grid[:, axis + 1 :]]
    parts = [part for part in parts if part.shape[1] != 0]
    return mb.concat(values=parts, axis=1) if len(parts) > 1 else along


HANDLERS: dict[str, Handler] = {
    "Scatter": scatter_elements,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
}
