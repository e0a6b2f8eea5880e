"""Scales per channel behind a layer instead of in its weights, for kernels that fuse one scale only.

conv(x, s_c · w) = f_c · conv(x, t · w) with s_c = t · f_c. The one scale t that stays with the integers is a
power of two, so that every factor f_c = s_c / t has the bits of s_c: the function stays what it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from edgeq.calibration.affine import exact_scales
from edgeq.compiler.plan import Plan
from edgeq.compiler.plan_nodes import input_at
from edgeq.compiler.quantize.rewriter import Rewriter, drop_unused
from edgeq.compiler.quantize.saturation import Floats
from edgeq.compiler.quantize.static_weights import QuantizedWeight
from edgeq.compiler.recipe import Recipe
from edgeq.targets.base import Capabilities


def scale_results(
    model: ir.Model,
    plan: Plan,
    capabilities: Capabilities,
    recipe: Recipe,
    weights: Mapping[str, QuantizedWeight],
) -> None:
    """Rewrite, in place, the convolutions of the QDQ ``model`` whose rule asks for it (``scales_result``)."""
    edit = Rewriter(model, capabilities, recipe)
    codes = {f"{name}_quantized": weight for name, weight in weights.items()}
    for node in list(model.graph):
        rule = capabilities.int8_static.get(node.op_type)
        planned = plan.nodes.get(node.name or "")
        if rule is None or not rule.scales_result or planned is None or planned.precision != "int8":
            continue
        dequantize = _dequantize(node)
        weight = None if dequantize is None else codes.get(_source(dequantize))
        if dequantize is not None and weight is not None and weight.params.scale.ndim == 1:
            _rewrite(edit, node, dequantize, weight)
    drop_unused(model)


def _dequantize(node: ir.Node) -> ir.Node | None:
    value = input_at(node, 1)
    producer = None if value is None else value.producer()
    return producer if producer is not None and producer.op_type == "DequantizeLinear" else None


def _source(dequantize: ir.Node) -> str:
    value = dequantize.inputs[0]
    return "" if value is None else value.name or ""


def _rewrite(edit: Rewriter, node: ir.Node, dequantize: ir.Node, weight: QuantizedWeight) -> None:
    scales = weight.params.scale
    one = np.float32(2.0 ** np.floor(np.log2(float(scales.max()))))
    factors = scales / one
    if (exact_scales(factors, edit.capabilities.scale_dtype) != factors).any():
        return  # the smallest channels would lose bits
    name = node.name or node.op_type
    dequantize.replace_input_with(1, edit.initializer(f"{name}_weight_scale", np.asarray(one)))
    dequantize.replace_input_with(2, edit.initializer(f"{name}_weight_zero_point", np.zeros((), np.int8)))
    dequantize.attributes.clear()
    result, uses = node.outputs[0], list(node.outputs[0].uses())
    spread = (1, -1, *([1] * (weight.codes.ndim - 2)))
    made = [edit.node("Mul", [result, _constant(edit, f"{name}_scale", factors, spread)], f"{name}_Scale")]
    bias = input_at(node, 2)
    if bias is not None:
        made.append(_bias(edit, node, bias, made[0].outputs[0], spread))
    _replace_result(edit, node, made, uses)


def _bias(
    edit: Rewriter, node: ir.Node, bias: ir.Value, result: ir.Value, spread: tuple[int, ...]
) -> ir.Node:
    """The bias behind the factor that it must not be multiplied with."""
    node.resize_inputs(2)
    assert bias.const_value is not None
    numbers = np.asarray(bias.const_value.numpy(), np.float32)
    constant = _constant(edit, f"{bias.name}_spread", numbers, spread)
    return edit.node("Add", [result, constant], f"{node.name}_Bias")


def _constant(edit: Rewriter, name: str, numbers: Floats, shape: tuple[int, ...]) -> ir.Value:
    return edit.initializer(name, numbers.astype(np.float32).reshape(shape))


def _replace_result(
    edit: Rewriter, node: ir.Node, made: list[ir.Node], uses: Sequence[tuple[ir.Node, int]]
) -> None:
    """Let the readers of the node's result read that of the last of ``made``, under the old name."""
    result, last = node.outputs[0], made[-1].outputs[0]
    for value in (step.outputs[0] for step in made):
        value.type, value.shape = result.type, None if result.shape is None else ir.Shape(list(result.shape))
    edit.model.graph.insert_after(node, made)
    for user, index in uses:
        user.replace_input_with(index, last)
    outputs = edit.model.graph.outputs
    for index, output in enumerate(outputs):
        if output is result:
            outputs[index] = last
    name = result.name or ""
    result.name = edit.free_name(f"{name}_unscaled")
    last.name = name
