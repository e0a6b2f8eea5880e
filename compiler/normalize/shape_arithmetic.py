"""Shape tensors become constants: fully known ones by value, Reshape targets with 0 and -1, Expand with 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgeq.compiler.normalize.editing import (
    add_constant,
    get_input,
    get_int,
    integers,
    is_constant,
    is_op,
    nodes,
)
from edgeq.compiler.normalize.symbolic import (
    Element,
    Elements,
    Values,
    dimensions,
    elements_of,
    product,
    quotient,
    same,
    shape_values,
)

_TO_THE_END = np.iinfo(np.int64).max


class FoldShapesPass(ir.passes.InPlacePass):
    """Compute what can be computed from dimensions, known or named.

    Requires: canonical constants, shapes that were inferred (not just declared). Ensures: a shape tensor
    whose content is known is an initializer; a Reshape that copies dimensions has a constant target.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        values = shape_values(model)
        count = _known_tensors(model, values)
        for node in nodes(model):
            if is_op(node, "Reshape"):
                count += _reshape(model, node, values)
            elif is_op(node, "Expand"):
                count += _expand(model, node, values)
            elif is_op(node, "Slice"):
                count += _slice(model, node, values)
        return ir.passes.PassResult(model, bool(count))


def _known_tensors(model: ir.Model, values: Values) -> int:
    count = 0
    for value, elements in values.items():
        shape = value.shape
        if not value.uses() or value.is_graph_output() or shape is None or len(shape) > 1:
            continue
        if all(isinstance(e, int) for e in elements) and value.dtype is not None:
            content = np.array(elements, value.dtype.numpy()).reshape([] if len(shape) == 0 else [-1])
            value.replace_all_uses_with(add_constant(model, content, value.name or "shape"))
            count += 1
    return count


def _reshape(model: ir.Model, node: ir.Node, values: Values) -> int:
    target = elements_of(node.inputs[1], values)
    if is_constant(node.inputs[1]) or target is None or get_int(node, "allowzero", 0):
        return 0
    dims = dimensions(node.inputs[0])
    content = reshape_target(target, dims or ())
    if content is None:
        return 0
    node.replace_input_with(1, add_constant(model, np.array(content, np.int64), f"{node.name}/shape"))
    return 1


def reshape_target(target: Elements, dims: Elements) -> list[int] | None:
    """``target`` with 0 where a dimension of the input is copied and -1 for at most one unknown element."""
    result = [_copied(i, element, dims) for i, element in enumerate(target)]
    if -1 in result and None in result:
        result = _solve(target, dims, result)
    unknown = [i for i, element in enumerate(result) if element is None]
    if len(unknown) + result.count(-1) > 1:
        return None
    return [-1 if element is None else element for element in result]


def _copied(index: int, element: Element, dims: Elements) -> int | None:
    if isinstance(element, int):
        return element
    return 0 if index < len(dims) and same(element, dims[index]) else None


def _solve(target: Elements, dims: Elements, result: Sequence[int | None]) -> list[int | None]:
    """Replace the -1 of a target by its number, when the number follows from the named dimensions."""
    place = result.index(-1)
    rest = [dims[i] if e == 0 and i < len(dims) else e for i, e in enumerate(target) if i != place]
    number = quotient(product(dims), product(rest)) if dims else None
    solved = list(result)
    if isinstance(number, int):
        solved[place] = number
    return solved


def _expand(model: ir.Model, node: ir.Node, values: Values) -> int:
    target, dims = elements_of(node.inputs[1], values), dimensions(node.inputs[0])
    if is_constant(node.inputs[1]) or target is None or dims is None or len(target) > len(dims):
        return 0
    aligned = dims[len(dims) - len(target) :]
    # Expand broadcasts, so 1 leaves a dimension as it is.
    content = [
        e if isinstance(e, int) else (1 if same(e, d) else None) for e, d in zip(target, aligned, strict=True)
    ]
    if None in content:
        return 0
    node.replace_input_with(1, add_constant(model, np.array(content, np.int64), f"{node.name}/shape"))
    return 1


def _slice(model: ir.Model, node: ir.Node, values: Values) -> int:
    ends, dims = elements_of(node.inputs[2], values), dimensions(node.inputs[0])
    axes = integers(get_input(node, 3)) if get_input(node, 3) is not None else None
    if is_constant(node.inputs[2]) or ends is None or dims is None or _has_negative_step(node):
        return 0
    axes = list(range(len(ends))) if get_input(node, 3) is None else axes
    if axes is None or len(axes) != len(ends):
        return 0
    content = [
        e if isinstance(e, int) else (_TO_THE_END if same(e, dims[a]) else None)
        for e, a in zip(ends, axes, strict=True)
    ]
    end = node.inputs[2]
    if None in content or end is None or end.dtype != ir.DataType.INT64:
        return 0
    node.replace_input_with(2, add_constant(model, np.array(content, np.int64), f"{node.name}/ends"))
    return 1


def _has_negative_step(node: ir.Node) -> bool:
    if get_input(node, 4) is None:
        return False
    steps = integers(get_input(node, 4))
    return steps is None or any(step < 1 for step in steps)
