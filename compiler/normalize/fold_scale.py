"""A scale by one number goes through Transposes and Reshapes up into the layer that made the values.

Exporters of attention scale queries and keys after splitting them into heads: the scale belongs to the
projection's weights.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeq.compiler.normalize.affine import affine_of
from edgeq.compiler.normalize.editing import (
    add_constant,
    array,
    is_op,
    nodes,
    only_user,
    other_input,
    producer,
    rank,
    remove_if_unused,
    replace_value,
    scalar,
)
from edgeq.compiler.normalize.linear import Linear, bias_of, linear_of, scale_outputs, set_bias

_REARRANGING = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten")


@dataclass(frozen=True)
class _Target:
    """The layer to scale, and the Add with its bias where the layer has none of its own."""

    layer: Linear
    add: ir.Node | None


class FoldScalePass(ir.passes.InPlacePass):
    """Multiply the weights instead of the values.

    Requires: canonical constants, inferred shapes. Only where nothing else reads the values in between.
    """

    def __init__(self) -> None:
        super().__init__()
        self.applied: Counter[str] = Counter()

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        before = self.applied.total()
        for node in nodes(model):
            value, number = _scaled(node)
            target = None if value is None else _target(node, value)
            if target is None or value is None:
                continue
            _scale(model, target, number)
            replace_value(node.outputs[0], value)
            remove_if_unused(node)
            self.applied[f"fold {node.op_type} into {target.layer.node.op_type} before it"] += 1
        return ir.passes.PassResult(model, self.applied.total() > before)


def _scaled(node: ir.Node) -> tuple[ir.Value | None, float]:
    """The value that a Mul or Div scales by a number, and the number."""
    if not is_op(node, "Mul", "Div"):
        return None, 1.0
    constant = node.inputs[1]
    if scalar(constant) is None and node.op_type == "Mul":
        constant = node.inputs[0]
    number = scalar(constant)
    value = None if constant is None else other_input(node, constant)
    if not number or not np.isfinite(number) or value is None or array(value) is not None:
        return None, 1.0
    small, large = rank(constant), rank(value)
    if small is None or large is None or small > large:
        return None, 1.0
    return value, number if node.op_type == "Mul" else 1 / number


def _target(node: ir.Node, value: ir.Value) -> _Target | None:
    maker = value.producer()
    reader = node
    while only_user(value) is reader and is_op(maker, *_REARRANGING) and maker is not None:
        if maker.graph is not node.graph or maker.inputs[0] is None:
            return None
        reader, value = maker, maker.inputs[0]
        maker = value.producer()
    if only_user(value) is not reader or maker is None or maker.graph is not node.graph:
        return None
    layer = linear_of(maker)
    return _biased(maker) if layer is None else _Target(layer, None)


def _biased(add: ir.Node) -> _Target | None:
    """A MatMul and the Add of a constant per column behind it."""
    if not is_op(add, "Add"):
        return None
    for value in add.inputs:
        layer = linear_of(producer(value, "MatMul"))
        if layer is None or value is None or only_user(value) is not add:
            continue
        affine = affine_of(add, value, channels=layer.channels, axis=layer.axis, rank=layer.rank)
        return None if affine is None else _Target(layer, add)
    return None


def _scale(model: ir.Model, target: _Target, number: float) -> None:
    layer = target.layer
    scale = np.full(layer.channels, number)
    scale_outputs(model, layer, scale)
    if layer.has_bias:
        set_bias(model, layer, bias_of(layer) * scale)
    if target.add is None:
        return
    index = 0 if target.add.inputs[1] is layer.node.outputs[0] else 1
    old = target.add.inputs[index]
    content = array(old)
    assert old is not None
    assert content is not None
    scaled = (content.astype(np.float64) * number).astype(content.dtype)
    target.add.replace_input_with(index, add_constant(model, scaled, f"{old.name}/folded"))
