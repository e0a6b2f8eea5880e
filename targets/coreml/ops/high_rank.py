"""Tensors of rank 6 and more between reshapes, transposes and the like: Core ML has at most rank 5.

Such a value is held as a MIL variable with the same numbers in the same order and a shape of rank 5 or less.
Only nodes that know about it read it: :func:`held_flat` looks at all readers before it is made, and they
get its sizes from :func:`input_sizes`. Pixel shuffles, windows of attention and unfolded images need it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, pairwise, permutations

import numpy as np
import onnx_ir as ir

from edgeq.targets.coreml.frontend.limits import MAX_RANK
from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.data_movement import normalized_axis
from edgeq.targets.coreml.ops.dimensions import Size, elements, quotient, size_of, sizes_of, times, vector_of
from edgeq.targets.coreml.toolkit import builder

_READERS = frozenset({"Reshape", "Transpose"})
# Readers that treat every number alike where their scale is a scalar: their results are held in the same way.
_PASSING = frozenset({"Cast", "DequantizeLinear", "QuantizeLinear"})


def held_flat(node: OnnxNode) -> bool:
    """Whether the node's result has a rank above 5 that all its readers can do with."""
    output = node.node.outputs[0]
    return is_high(output) and _has_able_readers(output)


def _has_able_readers(value: ir.Value) -> bool:
    uses = value.uses()
    return bool(uses) and not value.is_graph_output() and all(_is_able(use.node, use.idx) for use in uses)


def _is_able(reader: ir.Node, index: int) -> bool:
    if reader.domain or index != 0:
        return False
    if reader.op_type in _PASSING:
        return _is_per_tensor(reader) and _has_able_readers(reader.outputs[0])
    return reader.op_type in _READERS


def _is_per_tensor(reader: ir.Node) -> bool:
    if reader.op_type == "Cast":
        return True
    scale = reader.inputs[1]
    return scale is not None and scale.shape is not None and len(scale.shape) == 0


def is_high(value: ir.Value | None) -> bool:
    """Whether the rank is known to be above 5."""
    return value is not None and value.shape is not None and len(value.shape) > MAX_RANK


def input_sizes(node: OnnxNode, x: Var) -> list[Size]:
    """The sizes of input 0, ``x``, also when it is held in a smaller rank."""
    value = node.node.inputs[0]
    if value is None or not is_high(value):
        return sizes_of(x)
    producer = value.producer()
    if producer is None or producer.op_type not in _SIZES:
        node.refuse(f"its input has a rank above {MAX_RANK}")
    return _SIZES[producer.op_type](OnnxNode(producer, node.lowering))


def reshape_targets(node: OnnxNode, x: Var) -> list[Size]:
    """The sizes that a Reshape asks for, 0 and -1 replaced where they are numbers."""
    before = input_sizes(node, x)
    targets = elements(node, 1, "target sizes")
    if not node.attribute("allowzero", 0):
        targets = [
            before[axis] if isinstance(t, int) and t == 0 and axis < len(before) else t
            for axis, t in enumerate(targets)
        ]
    rest: Size = 1
    for target in targets:
        rest = times(rest, 1 if isinstance(target, int) and target == -1 else target)
    total: Size = 1
    for size in before:
        total = times(total, size)
    return [quotient(total, rest) if isinstance(t, int) and t == -1 else t for t in targets]


def _reshape_sizes(node: OnnxNode) -> list[Size]:
    return reshape_targets(node, node.input(0))


def _transpose_sizes(node: OnnxNode) -> list[Size]:
    sizes = input_sizes(node, node.input(0))
    perm = node.attribute("perm", list(range(len(sizes)))[::-1])
    return [sizes[axis] for axis in perm]


def _gather_sizes(node: OnnxNode) -> list[Size]:
    x, indices = node.input(0), node.input(1)
    axis = normalized_axis(node, node.attribute("axis", 0), x.rank)
    sizes = sizes_of(x)
    return [*sizes[:axis], *(size_of(indices, each) for each in range(indices.rank)), *sizes[axis + 1 :]]


def _passed_sizes(node: OnnxNode) -> list[Size]:
    return input_sizes(node, node.input(0))


_SIZES: dict[str, Callable[[OnnxNode], list[Size]]] = {
    **dict.fromkeys(_PASSING, _passed_sizes),
    "Gather": _gather_sizes,
    "Reshape": _reshape_sizes,
    "Transpose": _transpose_sizes,
}


def transposed_flat(node: OnnxNode, x: Var) -> Var:
    """Transpose of a rank above 5: axes that stay together are one, and axes of size 1 do not count."""
    sizes = input_sizes(node, x)
    perm = node.attribute("perm", list(range(len(sizes)))[::-1])
    if not held_flat(node):
        node.refuse(f"its result has rank {len(perm)} and Core ML tensors have at most {MAX_RANK}")
    runs = _runs([axis for axis in perm if not _is_one(sizes[axis])])
    if len(runs) < 2:
        return x
    order = sorted(runs)
    merged = [_product([sizes[axis] for axis in run]) for run in order]
    for step in _steps(node, [order.index(run) for run in runs]):
        x = _merged_transpose(x, merged, step)
        merged = [merged[axis] for axis in step]
    return x


def _merged_transpose(x: Var, sizes: Sequence[Size], perm: Sequence[int]) -> Var:
    """The transpose ``perm`` of a tensor with these sizes, held flat, as one of its runs of axes."""
    runs = _runs(perm)
    order = sorted(runs)
    merged = [_product([sizes[axis] for axis in run]) for run in order]
    x = builder().reshape(x=x, shape=vector_of(merged))
    return builder().transpose(x=x, perm=[order.index(run) for run in runs])


def _steps(node: OnnxNode, perm: list[int]) -> list[list[int]]:
    """``perm`` as one transpose of at most 5 runs of axes, or as two of them after each other."""
    if len(perm) <= MAX_RANK:
        return [perm]
    found = next((list(steps) for steps in _first_steps(perm) if len(_runs(steps[1])) <= MAX_RANK), None)
    if found is None:
        node.refuse(f"it moves {len(perm)} axes apart, and Core ML tensors have at most {MAX_RANK}")
    return found


def _first_steps(perm: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Every transpose of 5 runs of axes, and what ``perm`` needs after it."""
    count = len(perm)
    for cuts in combinations(range(1, count), MAX_RANK - 1):
        groups = [range(*ends) for ends in pairwise((0, *cuts, count))]
        for order in permutations(groups):
            first = [axis for group in order for axis in group]
            yield first, [first.index(axis) for axis in perm]


def _is_one(size: Size) -> bool:
    return isinstance(size, int) and size == 1


def _product(sizes: Sequence[Size]) -> Size:
    product: Size = 1
    for size in sizes:
        product = times(product, size)
    return product


def _runs(axes: Sequence[int]) -> list[list[int]]:
    """The axes, those that follow each other before and after together."""
    present = sorted(axes)
    following = dict(pairwise(present))
    runs: list[list[int]] = []
    for axis in axes:
        if runs and following.get(runs[-1][-1]) == axis:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    return runs


def flat_indices(indices: Var) -> Var:
    """Indices as vector: the gathered slices are in the same order."""
    return builder().reshape(x=indices, shape=np.array([-1], np.int32))
