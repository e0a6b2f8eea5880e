"""Dimensions that ONNX's inference leaves open, named by expressions of the inputs' dimensions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from edgeq.compiler.normalize.editing import get_input, get_int, integers, nodes, scalar
from edgeq.compiler.normalize.node_inference import infer_node
from edgeq.compiler.normalize.symbolic import (
    Element,
    Elements,
    Values,
    add,
    dimensions,
    elements_of,
    product,
    quotient,
    record,
    same,
)

# ONNX's inference gives every unknown dimension a name of its own.
_UNKNOWN = "unk__"
_BROADCASTING = (
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mul",
    "Or", "Pow", "Sub", "Where",
)  # fmt: skip


def refine_shapes(model: ir.Model) -> None:
    """Fill in dimensions that follow from the names of others, in one walk over the graph.

    Requires: types and shapes inferred by ONNX. Nodes with open dimensions are inferred again, because their
    inputs may be known better now; then the rules here are applied.
    """
    values: Values = {}
    for node in nodes(model):
        if not node.domain and any(_has_unknown(v) for v in node.outputs if v.name):
            _infer_again(model, node)
            rule = _RULES.get(node.op_type)
            found = None if rule is None else rule(node, values)
            if found is not None:
                _merge(node.outputs[0], found)
        record(node, values)


def _infer_again(model: ir.Model, node: ir.Node) -> None:
    for value, shape in infer_node(node, model.opset_imports[""]):
        elements = tuple(d if isinstance(d, int) else (d if d.value is not None else None) for d in shape)
        _merge(value, elements)


def _is_unknown(dim: Element) -> bool:
    return dim is None or (isinstance(dim, ir.SymbolicDim) and (dim.value or "").startswith(_UNKNOWN))


def _has_unknown(value: ir.Value) -> bool:
    dims = dimensions(value)
    return dims is None or any(_is_unknown(d) for d in dims)


def _merge(value: ir.Value, found: Elements) -> None:
    """Take over what is found where nothing is known."""
    old = dimensions(value)
    if old is not None and len(old) != len(found):
        return
    old = old if old is not None else (None,) * len(found)
    pairs = zip(old, found, strict=True)
    value.shape = ir.Shape([new if _is_unknown(known) and new is not None else known for known, new in pairs])


def broadcast(shapes: Sequence[Elements]) -> Elements:
    """The dimensions of an elementwise result, None where they are not known."""
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(_broadcast_dim([shape[i] for shape in padded]) for i in range(rank))


def _broadcast_dim(dims: Sequence[Element]) -> Element:
    large = [d for d in dims if d != 1]
    if not large:
        return 1
    number = next((d for d in large if isinstance(d, int)), None)
    if number is not None:
        return number
    if all(same(d, large[0]) for d in large):
        return large[0]
    # S and Min(512, S) can only meet when they are equal.
    names = [d for d in large if d is not None and not str(d).startswith("Min(")]
    if len(names) == 1 and all(d is not None and _is_capped(d, names[0]) for d in large):
        return names[0]
    return None


def _is_capped(dim: Element, name: Element) -> bool:
    text = str(dim)
    return dim == name or (text.startswith("Min(") and text.endswith(f", {name})"))


def _elementwise(node: ir.Node, values: Values) -> Elements | None:
    shapes = [dimensions(v) for v in node.inputs]
    known = [shape for shape in shapes if shape is not None]
    return broadcast(known) if len(known) == len(shapes) else None


def _reshape(node: ir.Node, values: Values) -> Elements | None:
    target, dims = elements_of(node.inputs[1], values), dimensions(node.inputs[0])
    if target is None or dims is None or get_int(node, "allowzero", 0):
        return None
    copied = [dims[i] if e == 0 and i < len(dims) else e for i, e in enumerate(target)]
    if -1 in copied:
        place = copied.index(-1)
        rest = product([e for i, e in enumerate(copied) if i != place])
        copied[place] = quotient(product(dims), rest)
    return tuple(copied)


def _expand(node: ir.Node, values: Values) -> Elements | None:
    target, dims = elements_of(node.inputs[1], values), dimensions(node.inputs[0])
    return None if target is None or dims is None else broadcast([target, dims])


def _constant_of_shape(node: ir.Node, values: Values) -> Elements | None:
    return elements_of(node.inputs[0], values)


def _range(node: ir.Node, values: Values) -> Elements | None:
    limit = elements_of(node.inputs[1], values)
    if scalar(node.inputs[0]) != 0 or scalar(node.inputs[2]) != 1 or limit is None or len(limit) != 1:
        return None
    return limit


def _slice(node: ir.Node, values: Values) -> Elements | None:
    """Dimensions that are not sliced stay; 0 to a named end is that end, or the whole if it is shorter."""
    dims, starts = dimensions(node.inputs[0]), integers(node.inputs[1])
    ends = elements_of(node.inputs[2], values)
    count = len(starts or ends or ())
    steps = [1] * count if get_input(node, 4) is None else integers(get_input(node, 4))
    axes = list(range(count)) if get_input(node, 3) is None else integers(get_input(node, 3))
    if dims is None or axes is None:
        return None
    result = list(dims)
    for i, axis in enumerate(axes):
        is_head = starts is not None and steps is not None and starts[i] == 0 and steps[i] == 1
        result[axis] = _head(dims[axis], ends[i]) if is_head and ends is not None else None
    return tuple(result)


def _head(dim: Element, end: Element) -> Element:
    """The size of ``[0:end]`` of a dimension."""
    if same(dim, end):
        return dim
    if not isinstance(dim, int) or end is None or (isinstance(end, int) and end < 0):
        return None
    return min(dim, end) if isinstance(end, int) else ir.SymbolicDim(f"Min({dim}, {end})")


def _concat(node: ir.Node, values: Values) -> Elements | None:
    shapes = [dimensions(v) for v in node.inputs]
    first = shapes[0]
    if first is None or any(shape is None or len(shape) != len(first) for shape in shapes):
        return None
    axis = get_int(node, "axis", 0) % len(first)
    known = [shape for shape in shapes if shape is not None]
    total: Element = 0
    for shape in known:
        total = add(total, shape[axis])
    others = [next((s[i] for s in known if not _is_unknown(s[i])), None) for i in range(len(first))]
    return tuple(total if i == axis else dim for i, dim in enumerate(others))


def _flatten(node: ir.Node, values: Values) -> Elements | None:
    dims = dimensions(node.inputs[0])
    if dims is None:
        return None
    axis = get_int(node, "axis", 1)
    axis = axis + len(dims) if axis < 0 else axis
    return product(dims[:axis]), product(dims[axis:])


_RULES: Mapping[str, Callable[[ir.Node, Values], Elements | None]] = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Flatten": _flatten,
    "Range": _range,
    "Reshape": _reshape,
    "Slice": _slice,
    **dict.fromkeys(_BROADCASTING, _elementwise),
}
