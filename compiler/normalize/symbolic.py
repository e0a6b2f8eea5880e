"""Shape arithmetic on dimensions that are only known by name: Shape → Gather → Mul → Concat → Reshape."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import onnx_ir as ir

from edgeq.compiler.normalize.editing import array, get_input, get_int, integers, nodes

# A number, a named expression of input dimensions, or None when nothing is known.
Element = int | ir.SymbolicDim | None
# A shape tensor's elements in order; scalars have one.
Elements = tuple[Element, ...]
_SIZE_LIMIT = 64
# Truth values are 0 and 1.
_DTYPES = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)

Values = dict[ir.Value, Elements]
Evaluator = Callable[[ir.Node, Sequence[Elements | None]], Elements | None]


def shape_values(model: ir.Model) -> Values:
    """What every small integer tensor that is computed from shapes holds. Requires inferred shapes."""
    known: Values = {}
    for node in nodes(model):
        record(node, known)
    return known


def record(node: ir.Node, known: Values) -> None:
    """Add what the node's output holds, when it is a shape tensor."""
    evaluator = _EVALUATORS.get(node.op_type) if node.domain == "" else None
    if evaluator is None or node.outputs[0].dtype not in _DTYPES:
        return
    elements = evaluator(node, [elements_of(v, known) for v in node.inputs])
    if elements is not None and len(elements) <= _SIZE_LIMIT:
        known[node.outputs[0]] = elements


def elements_of(value: ir.Value | None, known: Mapping[ir.Value, Elements]) -> Elements | None:
    """The elements of a shape tensor: those found before, or a small integer constant's."""
    if value is None or value in known:
        return None if value is None else known[value]
    if value.const_value is None or value.const_value.size > _SIZE_LIMIT:
        return None
    content = array(value)
    if content is None or content.dtype.kind not in "iub":
        return None
    return tuple(int(element) for element in content.reshape(-1))


def dimensions(value: ir.Value | None) -> Elements | None:
    """The dimensions of a value, None for those without a name."""
    if value is None or value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else (d if d.value is not None else None) for d in value.shape)


def same(a: Element, b: Element) -> bool:
    """Whether two elements are known to be equal."""
    return a is not None and b is not None and a == b


def product(elements: Sequence[Element]) -> Element:
    """The product, None when a factor is unknown."""
    result: Element = 1
    for element in elements:
        result = _multiply(result, element)
    return result


def quotient(a: Element, b: Element) -> Element:
    """``a / b`` where the division leaves no rest for any value of the names, else None."""
    if a is None or b is None or b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return a // b if a % b == 0 else None
    result = _symbolic(operator.truediv, a, b)
    return None if isinstance(result, ir.SymbolicDim) and "/" in (result.value or "/") else result


def _symbolic(
    function: Callable[[ir.SymbolicDim, int | ir.SymbolicDim], object], a: Element, b: Element
) -> Element:
    """Arithmetic with at least one named element, None when a name cannot be read as an expression."""
    left = ir.SymbolicDim(str(a)) if isinstance(a, int) else a
    if left is None or b is None:
        return None
    try:
        result = function(left, b)
    except ValueError:  # "batch size", "x:0": exporters name dimensions as they like.
        return None
    text = result.value if isinstance(result, ir.SymbolicDim) else str(result)
    if text is None:
        return None
    return int(text) if text.lstrip("-").isdigit() else ir.SymbolicDim(text)


def _multiply(a: Element, b: Element) -> Element:
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    if a == 1 or b == 1:
        return b if a == 1 else a
    return _symbolic(operator.mul, a, b)


def add(a: Element, b: Element) -> Element:
    """The sum, None when a summand is unknown."""
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    if a == 0 or b == 0:
        return b if a == 0 else a
    return _symbolic(operator.add, a, b)


def _subtract(a: Element, b: Element) -> Element:
    if isinstance(a, int) and isinstance(b, int):
        return a - b
    return a if b == 0 else _symbolic(operator.sub, a, b)


def _divide(a: Element, b: Element) -> Element:
    # ONNX integer division truncates; a negative operand is left alone.
    if isinstance(a, int) and isinstance(b, int):
        return a // b if a >= 0 and b > 0 else None
    return a if b == 1 else quotient(a, b)


def _elementwise(function: Callable[[Element, Element], Element]) -> Evaluator:
    def evaluate(node: ir.Node, inputs: Sequence[Elements | None]) -> Elements | None:
        a, b = inputs
        if a is None or b is None or (len(a) != len(b) and 1 not in (len(a), len(b))):
            return None
        size = max(len(a), len(b))
        a, b = (e * size if len(e) == 1 else e for e in (a, b))
        return tuple(function(x, y) for x, y in zip(a, b, strict=True))

    return evaluate


def _equal(a: Element, b: Element) -> Element:
    """1 or 0. A dimension is not negative, so no name equals -1; a difference of names may."""
    if a is None or b is None:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return int(a == b)
    if same(a, b):
        return 1
    name, number = (b, a) if isinstance(a, int) else (a, b)
    is_size = isinstance(name, ir.SymbolicDim) and "-" not in (name.value or "-")
    return 0 if is_size and isinstance(number, int) and number < 0 else None


def _where(node: ir.Node, inputs: Sequence[Elements | None]) -> Elements | None:
    if inputs[0] is None or inputs[1] is None or inputs[2] is None:
        return None
    size = max(len(elements) for elements in inputs if elements is not None)
    chosen, first, second = (e * size if len(e) == 1 else e for e in inputs if e is not None)
    if not len(chosen) == len(first) == len(second):
        return None
    return tuple(
        None if c is None else (a if c else b) for c, a, b in zip(chosen, first, second, strict=True)
    )


def _shape(node: ir.Node, inputs: Sequence[Elements | None]) -> Elements | None:
    dims = dimensions(node.inputs[0])
    if dims is None:
        return None
    end = node.attributes["end"].as_int() if "end" in node.attributes else None
    return dims[get_int(node, "start", 0) : end]


def _size(node: ir.Node, inputs: Sequence[Elements | None]) -> Elements | None:
    dims = dimensions(node.inputs[0])
    total = None if dims is None else product(dims)
    return None if total is None else (total,)


def _gather(node: ir.Node, inputs: Sequence[Elements | None]) -> Elements | None:
    data, indices = inputs[0], integers(node.inputs[1])
    shape = node.inputs[1].shape if node.inputs[1] is not None else None
    if data is None or indices is None or shape is None or len(shape) > 1 or _rank(node.inputs[0]) != 1:
        return None
    inside = all(-len(data) <= i < len(data) for i in indices)
    return tuple(data[i] for i in indices) if inside else None


def _slice(node: ir.Node, inputs: Sequence[Elements | None]) -> Elements | None:
    bounds = [integers(get_input(node, i)) for i in (1, 2)]
    step = [1] if get_input(node, 4) is None else integers(get_input(node, 4))
    if inputs[0] is None or None in bounds or step is None or any(len(b or ()) != 1 for b in [*bounds, step]):
        return None
    start, end = (cast(list[int], b)[0] for b in bounds)
    if step[0] < 1 or _rank(node.inputs[0]) != 1:
        return None
    return inputs[0][start : end : step[0]]


def _concat(node: ir.Node, inputs: Sequence[Elements | None]) -> Elements | None:
    # An input of unknown content but known length still leaves the others known.
    parts: list[Element] = []
    for value, elements in zip(node.inputs, inputs, strict=True):
        length = None if value is None or value.shape is None or len(value.shape) != 1 else value.shape[0]
        if elements is None and not isinstance(length, int):
            return None
        parts.extend(elements if elements is not None else [None] * cast(int, length))
    return tuple(parts)


def _same_elements(node: ir.Node, inputs: Sequence[Elements | None]) -> Elements | None:
    result_rank = _rank(node.outputs[0])
    return inputs[0] if result_rank is not None and result_rank <= 1 else None


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


_EVALUATORS: Mapping[str, Evaluator] = {
    "Shape": _shape,
    "Size": _size,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Squeeze": _same_elements,
    "Unsqueeze": _same_elements,
    "Reshape": _same_elements,
    "Cast": _same_elements,
    "Identity": _same_elements,
    "Add": _elementwise(add),
    "Sub": _elementwise(_subtract),
    "Mul": _elementwise(_multiply),
    "Div": _elementwise(_divide),
    "Equal": _elementwise(_equal),
    "Where": _where,
}
