"""Attention masks of -3.4e38 in float16: numbers that it has, so that a query without keys stays finite."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from edgeq.calibration.types import Array
from edgeq.compiler.quantize.rewriter import Editor

# exp(-3e4) is 0 beside any score; two such masks and a score still add up to a finite float16.
HIDDEN = -3e4

_FLOAT = ir.DataType.FLOAT
# Operators that only move numbers → the inputs that hold them.
_FIRST = (0,)
_MOVES = {
    **dict.fromkeys(("Cast", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split"), _FIRST),
    **dict.fromkeys(("Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze"), _FIRST),
    "Concat": None,
}
# Inputs where a constant stands beside scores, and where a mask goes on being one.
_MASKS = {"Add": (0, 1), "Mul": (0, 1), "Sub": (0,), "Where": (1, 2)}
_ENDS = {"Softmax": 0, "Attention": 3}


def soften_masks(state: Editor, largest: float) -> int:
    """Replace finite constants below ``-largest`` by -3e4 where only softmax sees the difference; how many.

    As -inf, which float16 makes of them, they give NaN for a query whose keys are all hidden (where float32
    gives the mean of the values) and for ``0 * -inf`` in masks made by a product.
    """
    softened = 0
    for node in list(state.model.graph.all_nodes()):
        for index in _MASKS.get(node.op_type, ()) if node.domain == "" else ():
            softened += _soften(node, index, state, largest)
    return softened


def _soften(node: ir.Node, index: int, state: Editor, largest: float) -> bool:
    value = node.inputs[index]
    numbers = _numbers(value)
    if value is None or numbers is None or numbers.dtype != np.float32:
        return False
    hidden = np.isfinite(numbers) & (numbers < -largest)
    if not hidden.any() or not _is_mask(node, index) or not _only_softmax(node):
        return False
    softer = np.where(hidden, np.float32(HIDDEN), numbers).astype(np.float32)
    node.replace_input_with(index, state.initializer(f"{value.name}_hidden", softer))
    return True


def _is_mask(node: ir.Node, index: int) -> bool:
    """Whether the constant stands beside scores; in a product it does so when the rest counts in ones."""
    return node.op_type != "Mul" or _is_whole(node.inputs[1 - index])


def _is_whole(value: ir.Value | None) -> bool:
    """Whether all numbers are integers: casts of integers, and sums and products of such."""
    numbers = _numbers(value)
    if numbers is not None:
        return bool(np.all(numbers == np.round(numbers)))
    if value is None or value.dtype != _FLOAT:
        return value is not None
    maker = value.producer()
    if maker is None or maker.op_type not in {*_MOVES, "Add", "Mul", "Sub"}:
        return False
    return all(_is_whole(source) for source in _moved(maker))


def _moved(node: ir.Node) -> Iterator[ir.Value | None]:
    """The inputs whose numbers make those of the result."""
    indices = _MOVES.get(node.op_type)
    for index, value in enumerate(node.inputs):
        if indices is None or index in indices:
            yield value


def _only_softmax(node: ir.Node) -> bool:
    """Whether everything that reads the result, directly or moved or added to scores, is a softmax."""
    waiting, seen = list(node.outputs), set()
    while waiting:
        value = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        uses = list(value.uses())
        if value.is_graph_output() or not uses:
            return False
        for reader, index in uses:
            if _goes_on(reader, index):
                waiting += reader.outputs
            elif _ENDS.get(reader.op_type) != index:
                return False
    return True


def _goes_on(reader: ir.Node, index: int) -> bool:
    if reader.op_type in _MOVES:
        indices = _MOVES[reader.op_type]
        return (indices is None or index in indices) and reader.outputs[0].dtype == _FLOAT
    return reader.op_type != "Mul" and index in _MASKS.get(reader.op_type, ())


def _numbers(value: ir.Value | None) -> Array | None:
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else np.asarray(tensor.numpy())
