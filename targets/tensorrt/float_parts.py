"""Which nodes of a narrow network stay float32: what overflows, counts, or has no other form."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

import numpy as np
import onnx_ir as ir

from edgeq.compiler.quantize.fp16_types import takes_half
from edgeq.compiler.quantize.narrowing import FLOAT, NarrowConstants, is_float_constant
from edgeq.compiler.subgraphs import has_subgraphs

# Their results leave the range of float16 at ordinary inputs.
_OVERFLOWS = frozenset(
    {
        "CumSum", "Exp", "Pow", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd",
        "ReduceSum", "ReduceSumSquare",
    }
)  # fmt: skip
# From a sum of squares back to ordinary numbers.
_AFTER_SQUARES = frozenset({"Add", "Div", "Max", "Clip", "ReduceMean", "Reciprocal", "Sqrt"})
_TYPED_BY_ATTRIBUTE = frozenset({"Cast", "ConstantOfShape"})
# TensorRT for RTX 1.7.1 refuses them in bfloat16 (found by building each operator).
_NO_BFLOAT16 = frozenset({"Celu", "ConvTranspose", "GRU", "HardSwish", "Mish", "Shrink"})
_QUANTIZATION = frozenset({"QuantizeLinear", "DequantizeLinear"})
# What may stand between a shift and its rounding.
_MOVES = frozenset({"MaxPool", "Pad"})
_ANGLES = frozenset({"Sin", "Cos"})
# They compute with data, whatever they read.
_DATA = _QUANTIZATION | {
    "Attention", "Conv", "Gather", "Gemm", "LayerNormalization", "RMSNormalization", "Softmax"
}  # fmt: skip

Reasons = dict[ir.Node, str]


def float_parts(model: ir.Model, dtype: ir.DataType, constants: NarrowConstants) -> Reasons:
    """Node → why it computes in float32 although the rest computes in ``dtype``."""
    nodes = [node for node in model.graph.all_nodes() if _has_floats(node)]
    checks: tuple[Callable[[ir.Node], str | None], ...] = (
        _why_not_border,
        lambda node: _why_not_type(node, model, dtype),
        lambda node: _why_not_constants(node, constants),
        _why_not_range if dtype == ir.DataType.FLOAT16 else lambda node: None,
    )
    found = {node: why for node in nodes if (why := next(filter(None, (c(node) for c in checks)), None))}
    for node in exact_counts(nodes):
        found.setdefault(node, "it counts positions: beyond 2048 the narrow type has no odd numbers")
    _follow_squares(nodes, found)
    return found


def _has_floats(node: ir.Node) -> bool:
    if has_subgraphs(node):
        return True
    return any(value is not None and value.dtype == FLOAT for value in (*node.inputs, *node.outputs))


def _why_not_border(node: ir.Node) -> str | None:
    if has_subgraphs(node):
        return "control flow keeps float32 at its borders"
    return None


def _why_not_type(node: ir.Node, model: ir.Model, dtype: ir.DataType) -> str | None:
    if dtype == ir.DataType.BFLOAT16 and node.op_type in _NO_BFLOAT16:
        return f"TensorRT has no bfloat16 {node.op_type}"
    if node.domain == "" and node.op_type in _TYPED_BY_ATTRIBUTE | _QUANTIZATION:
        return None
    return takes_half(node, model.opset_imports.get(node.domain, 0), dtype)


def _why_not_constants(node: ir.Node, constants: NarrowConstants) -> str | None:
    if node.op_type in _QUANTIZATION:
        return None
    for value in node.inputs:
        if value is None or not is_float_constant(value):
            continue
        if constants.too_large(value):
            return f"its constant {value.name!r} has values beyond {constants.largest:.0f}"
        if _vanishes(value, constants.smallest):
            return f"its constant {value.name!r} would become 0"
    return None


def _vanishes(value: ir.Value, smallest: float) -> bool:
    """A single number, as the epsilon of a normalization; among many weights such a small one is no loss."""
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.size != 1:
        return False
    number = abs(float(np.asarray(tensor.numpy()).reshape(-1)[0]))
    return 0 < number < smallest


def _why_not_range(node: ir.Node) -> str | None:
    if node.op_type in _OVERFLOWS:
        return f"{node.op_type} overflows in float16 at ordinary inputs"
    if _is_square(node) and any(user.op_type.startswith("Reduce") for user in node.outputs[0].consumers()):
        return "squares that are added up overflow in float16"
    return None


def _is_square(node: ir.Node) -> bool:
    return node.op_type == "Mul" and node.inputs[0] is node.inputs[1]


def _follow_squares(nodes: Iterable[ir.Node], found: Reasons) -> None:
    """The mean, epsilon and root after a square: float32 until the numbers are ordinary again."""
    squares = {node for node in found if node.op_type == "Pow" or _is_square(node)}
    for node in nodes:
        makers = [value.producer() for value in node.inputs if value is not None]
        if node in squares or node.op_type not in _AFTER_SQUARES:
            continue
        if not any(maker in squares for maker in makers):
            continue
        if all(maker is None or maker in squares for maker in makers):
            squares.add(node)
            found.setdefault(node, "it reads sums of squares")


def shifts(graph: ir.Graph) -> Reasons:
    """Sums with one number that are rounded to integers next, and what stands between.

    They are those of zero points (:mod:`edgeq.compiler.quantize.zero_points`), about 128 steps large, where
    numbers of float16 lie up to a sixteenth of a step apart and those of bfloat16 half of one or more. That
    moves the borders between the steps, and a channel whose values lie close together falls aside at once.
    The compiler makes the sum and its Cast part of the kernel that rounds, which moves no more bytes.
    """
    found: Reasons = {}
    for rounding in (node for node in graph if node.op_type == "QuantizeLinear"):
        way: list[ir.Node] = []
        maker = _only_maker(rounding)
        while maker is not None and maker.op_type in _MOVES:
            way.append(maker)
            maker = _only_maker(maker)
        if maker is not None and maker.op_type == "Add" and any(map(_is_number, maker.inputs)):
            found.update(dict.fromkeys((*way, maker), "it shifts what is rounded to integers"))
    return found


def _only_maker(reader: ir.Node) -> ir.Node | None:
    """What makes the first input of ``reader``, if nothing else reads it."""
    value = reader.inputs[0]
    if value is None or value.is_graph_output() or len(list(value.uses())) != 1:
        return None
    return value.producer()


def _is_number(value: ir.Value | None) -> bool:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return tensor is not None and tensor.size == 1


def exact_counts(nodes: Collection[ir.Node]) -> set[ir.Node]:
    """Nodes from integers and constants alone to sines, cosines, or integers again: positions and sizes."""
    counted: set[ir.Node] = set()
    for node in nodes:
        if node.op_type not in _DATA and all(_counts(value, counted) for value in node.inputs):
            counted.add(node)
    waiting = [node for node in counted if node.op_type in _ANGLES or _makes_integers(node)]
    found: set[ir.Node] = set()
    while waiting:
        node = waiting.pop()
        if node in found:
            continue
        found.add(node)
        waiting += [maker for maker in _makers(node) if maker in counted]
    return found


def _makes_integers(node: ir.Node) -> bool:
    reads = any(value is not None and value.dtype == FLOAT for value in node.inputs)
    return reads and all(out.dtype is not None and not out.dtype.is_floating_point() for out in node.outputs)


def _counts(value: ir.Value | None, counted: set[ir.Node]) -> bool:
    if value is None or value.dtype != FLOAT:
        return True
    return is_float_constant(value) or value.producer() in counted


def _makers(node: ir.Node) -> Iterator[ir.Node]:
    for value in node.inputs:
        maker = None if value is None or value.dtype != FLOAT else value.producer()
        if maker is not None:
            yield maker
