"""Gathering: elements chosen by indices."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.data_movement import movable, normalized_axis, numeric, restored
from edgeq.targets.coreml.ops.dimensions import same, size_of
from edgeq.targets.coreml.ops.high_rank import flat_indices, held_flat
from edgeq.targets.coreml.ops.indexing import index_tuples, indices_along
from edgeq.targets.coreml.ops.scattering import HANDLERS as SCATTERING
from edgeq.targets.coreml.ops.slicing import Window, windowed
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler

_BATCH_DIMS_SINCE = 16


def gather(node: OnnxNode) -> Var:
    """Gather: slices along ``axis``. A quantized table stays one."""
    x = numeric(node, small=True)
    axis = normalized_axis(node, node.attribute("axis", 0), x.rank)
    indices = indices_along(node, x, axis)
    if held_flat(node):
        indices = flat_indices(indices)
    found = builder().gather(x=x, indices=indices, axis=axis)
    return restored(node, found)


def gather_elements(node: OnnxNode) -> Var:
    """GatherElements: one element along ``axis`` per index."""
    x = numeric(node, small=True)
    axis = normalized_axis(node, node.attribute("axis", 0), x.rank)
    indices = indices_along(node, x, axis)
    x = _as_large_as(x, node.input(1), axis)
    return restored(node, builder().gather_along_axis(x=x, indices=indices, axis=axis))


def _as_large_as(x: Var, indices: Var, axis: int) -> Var:
    """``x`` without what no index reads: MIL wants equal sizes off ``axis``, ONNX does not."""
    windows = []
    for each in range(x.rank):
        wanted = size_of(indices, each)
        if each != axis and not same(size_of(x, each), wanted):
            windows.append(Window(each, None, wanted, 1))
    return windowed(x, windows)


def gather_nd(node: OnnxNode) -> Var:
    """GatherND: slices at index tuples, within the first ``batch_dims`` axes."""
    mb = builder()
    x = numeric(node, small=True)
    batch = node.attribute("batch_dims", 0)
    extra = {} if batch == 0 else {"batch_dims": batch}
    if extra and node.lowering.ios < _BATCH_DIMS_SINCE:
        node.refuse("batch_dims needs iOS 16")
    indices = index_tuples(node, x, batch)
    if indices.rank > 1:
        return restored(node, mb.gather_nd(x=x, indices=indices, **extra))
    # MIL has no tensor of rank 0: a batch of one tuple
    found = mb.gather_nd(x=x, indices=mb.expand_dims(x=indices, axes=[0]))
    return restored(node, mb.squeeze(x=found, axes=[0]))


def reverse_sequence(node: OnnxNode) -> Var:
    """ReverseSequence: the first elements of every sequence backwards."""
    x = movable(node)
    time_axis = normalized_axis(node, node.attribute("time_axis", 0), x.rank)
    batch_axis = normalized_axis(node, node.attribute("batch_axis", 1), x.rank)
    return builder().reverse_sequence(x=x, lengths=node.input(1), seq_axis=time_axis, batch_axis=batch_axis)


def non_zero(node: OnnxNode) -> Var:
    """NonZero: the indices of what is not zero, one row per axis."""
    x = movable(node)
    if x.rank == 0:
        node.refuse("its input is a scalar")
    mb = builder()
    return mb.transpose(x=mb.non_zero(x=x), perm=[1, 0])


def _data_dependent(node: OnnxNode) -> NoReturn:
    node.refuse("the shape of its result depends on the data", "Compute it outside of the model.")


HANDLERS: dict[str, Handler] = {
    "Compress": _data_dependent,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "NonZero": non_zero,
    "ReverseSequence": reverse_sequence,
    "Unique": _data_dependent,
    **SCATTERING,
}
