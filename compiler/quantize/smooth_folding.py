"""Where the factors of smoothing go without a product of their own: into what makes the activation.

A compiler that runs attention as one kernel does so only while nothing but moves stands between its products
and the rounding behind them (read in TensorRT's layer table: with a product there, scores and probabilities
go through memory). Channel j of softmax(q k) v is made of channel j of v alone, so its factor goes into the
projection of the values.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgeq.compiler.plan_nodes import constant, input_at, is_constant
from edgeq.compiler.quantize.moves import moved_from
from edgeq.compiler.quantize.rewriter import Rewriter

Floats = npt.NDArray[np.float32]
_NORMALIZATIONS = ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
_BY_HEADS = [0, 2, 1, 3]


def divide_normalization(value: ir.Value, scales: Floats, edit: Rewriter) -> bool:
    """Divide gain and offset of the normalization that makes ``value``; False where there is none."""
    producer = value.producer()
    if producer is None or producer.op_type not in _NORMALIZATIONS or value.is_graph_output():
        return False
    parameters = [(i, constant(input_at(producer, i))) for i in (1, 2) if input_at(producer, i) is not None]
    if any(numbers is None or numbers.shape != scales.shape for _, numbers in parameters):
        return False
    for index, numbers in parameters:
        if numbers is not None:
            _replace_constant(producer, index, np.divide(numbers, scales, dtype=np.float32), edit)
    return True


def restore(value: ir.Value, scales: Floats, readers: list[tuple[ir.Node, int]], edit: Rewriter) -> None:
    """Let ``readers`` of the divided ``value`` read what it was."""
    factors = edit.initializer(f"{value.name}_smoothing", scales.astype(np.float32))
    product = edit.node("Mul", [value, factors], f"{value.name}_restored")
    product.outputs[0].shape, product.outputs[0].type = value.shape, value.type
    producer = value.producer()
    assert producer is not None
    edit.model.graph.insert_after(producer, [product])
    for node, index in readers:
        node.replace_input_with(index, product.outputs[0])


def behind_attention(value: ir.Value) -> bool:
    """Whether only moves stand between ``value`` and a product of two activations."""
    maker = moved_from(value).producer()
    return maker is not None and maker.op_type == "MatMul" and not any(map(is_constant, maker.inputs))


def divide_values(value: ir.Value, scales: Floats, edit: Rewriter) -> bool:
    """Divide the channels of the values' projection whose heads ``value`` puts together again."""
    heads = _back_through_heads(value)
    product = None if heads is None else heads.producer()
    if product is None or product.op_type != "MatMul" or not _read_once(product.outputs[0]):
        return False
    split = product.inputs[1]
    if heads is None or split is None or not _same_heads(heads, split, len(scales)):
        return False
    projected = _back_through_heads_of_values(split)
    return projected is not None and _divide_projection(projected, scales, edit)


def _back_through_heads(value: ir.Value) -> ir.Value | None:
    """[batch, heads, rows, depth] that a Transpose and a Reshape make [batch, rows, channels] of."""
    transposed = _source(value, "Reshape")
    return None if transposed is None else _transposed(transposed)


def _back_through_heads_of_values(value: ir.Value) -> ir.Value | None:
    reshaped = _transposed(value) if _read_once(value) else None
    return None if reshaped is None or not _read_once(reshaped) else _source(reshaped, "Reshape")


def _transposed(value: ir.Value) -> ir.Value | None:
    producer = value.producer()
    if producer is None or not _read_once(value):
        return None
    found = producer.attributes.get("perm")
    permutation = None if found is None else list(found.as_ints())
    return _source(value, "Transpose") if permutation == _BY_HEADS else None


def _source(value: ir.Value, op_type: str) -> ir.Value | None:
    producer = value.producer()
    return producer.inputs[0] if producer is not None and producer.op_type == op_type else None


def _same_heads(heads: ir.Value, split: ir.Value, channels: int) -> bool:
    """Whether both are [batch, heads, rows, depth] of the same, known heads and depth."""
    if heads.shape is None or split.shape is None or len(heads.shape) != 4 or len(split.shape) != 4:
        return False
    first, second = ([shape[1], shape[3]] for shape in (heads.shape, split.shape))
    if not all(isinstance(size, int) for size in first) or first != second:
        return False
    return int(np.prod(np.asarray(first, np.int64))) == channels


def _divide_projection(projected: ir.Value, scales: Floats, edit: Rewriter) -> bool:
    """Divide the weights of the MatMul, and the bias behind it, whose result is ``projected``."""
    node = projected.producer()
    if node is None or not _read_once(projected):
        return False
    added = None
    if node.op_type == "Add":
        added = next((i for i in (0, 1) if is_constant(node.inputs[i])), None)
        product = None if added is None else node.inputs[1 - added]
        if added is None or product is None or not _is_vector(node, added, scales) or not _read_once(product):
            return False
        bias, node = node, product.producer()
    if node is None or node.op_type != "MatMul":
        return False
    weights = constant(input_at(node, 1))
    if weights is None or weights.ndim != 2 or weights.shape[1] != len(scales):
        return False
    _replace_constant(node, 1, np.divide(weights, scales, dtype=np.float32), edit)
    if added is not None:
        numbers = constant(bias.inputs[added])
        _replace_constant(bias, added, np.divide(numbers, scales, dtype=np.float32), edit)  # type: ignore[arg-type]
    return True


def _is_vector(node: ir.Node, index: int, scales: Floats) -> bool:
    numbers = constant(node.inputs[index])
    return numbers is not None and numbers.shape == scales.shape


def _replace_constant(node: ir.Node, index: int, numbers: Floats, edit: Rewriter) -> None:
    old = input_at(node, index)
    name = "constant" if old is None else old.name
    node.replace_input_with(index, edit.initializer(f"{name}_smooth", np.asarray(numbers, np.float32)))


def _read_once(value: ir.Value) -> bool:
    return len(list(value.uses())) == 1 and not value.is_graph_output()
