"""LSTM as com.microsoft.DynamicQuantizeLSTM: int8 weights, inputs and states quantized at every step."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeq.compiler.plan import QuantSpec
from edgeq.compiler.quantize.expanded import expand_inputs
from edgeq.compiler.quantize.rewriter import MICROSOFT, Rewriter
from edgeq.compiler.quantize.rounding import round_int8, round_int8_pairs
from edgeq.compiler.quantize.walk import Decision
from edgeq.compiler.quantize.weights import Weight, find_weight

_STORED = "int8 weights with float arithmetic"


def dynamic_lstm(node: ir.Node, state: Rewriter) -> Decision:
    """Quantize W and R per gate row; int8 storage where the kernel cannot take them."""
    refusal = _refusal(node)
    if refusal is not None:
        return expand_inputs(node, state, [(1, (0, 1)), (2, (0, 1))], f"{refusal}: {_STORED}")
    weights = [find_weight(node.inputs[1]), find_weight(node.inputs[2])]
    quantized: list[ir.Value] = []
    for weight in weights:
        assert weight is not None
        quantized += _columns(weight, state)
    w, w_scale, w_zero, r, r_scale, r_zero = quantized
    given = list(node.inputs) + [None] * (8 - len(node.inputs))
    inputs = [given[0], w, r, *given[3:8], w_scale, w_zero, r_scale, r_zero]
    attributes = {key: attribute for key, attribute in node.attributes.items() if key != "layout"}
    made = state.node(
        "DynamicQuantizeLSTM",
        inputs,
        node.name or "",
        domain=MICROSOFT,
        outputs=len(node.outputs),
        final=True,
    )
    for attribute in attributes.values():
        made.attributes.add(attribute)
    state.replace(node, [made])
    return Decision("int8", "int8 weights, inputs and states quantized at run time (DynamicQuantizeLSTM)")


def _refusal(node: ir.Node) -> str | None:
    for index in (1, 2):
        weight = find_weight(node.inputs[index])
        if weight is None:
            return "its weights are not constant"
        if not weight.finite():
            return "its weights contain NaN or Inf"
    if node.attributes.get_int("layout", 0):
        return "DynamicQuantizeLSTM has no batch-first layout"
    return None


def _columns(weight: Weight, state: Rewriter) -> list[ir.Value]:
    """Codes int8 [directions, inputs, 4 * hidden], scales and zero points [directions, 4 * hidden]."""
    key = ("lstm", weight.root, weight.perm)
    if key not in state.cache:
        array = weight.array()
        directions, gates, inputs = array.shape
        rows = array.reshape(directions * gates, inputs)
        rounded = round_int8_pairs(rows) if state.recipe.saturation_safe else round_int8(rows)
        codes = rounded.codes.astype(np.int8).reshape(array.shape).transpose(0, 2, 1)
        scales = rounded.scales.reshape(directions, gates)
        zeros = np.zeros(scales.shape, np.int8)
        state.record(weight.name, QuantSpec("int8", True, 1), scales, zeros)
        name = weight.name
        state.cache[key] = [
            state.initializer(f"{name}_int8", codes),
            state.initializer(f"{name}_scale", scales),
            state.initializer(f"{name}_zero_point", zeros),
        ]
    values: list[ir.Value] = state.cache[key]
    return values
