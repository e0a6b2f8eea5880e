"""Scheme ``int8-dynamic``: int8 arithmetic with activation ranges found at every inference.

What gets int8 arithmetic was decided by measuring ONNX Runtime 1.31 on one CPU core (ratio to float):

- MatMul/Gemm with constant weights of 16,384 numbers or more: 1.2 to 2.4x; smaller ones 0.8 to 1.0x.
- LSTM (DynamicQuantizeLSTM): 1.5 to 3.3x.
- Conv (ConvInteger): 0.05 to 0.36x with s8 weights, 0.23 to 1.16x with u8, at 4 dB less accuracy than int8
  weights in float arithmetic: not worth it.
- MatMul of two activations (attention): 0.8 to 1.16x, and scores of 37 dB: not worth it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeq.compiler.model import Model
from edgeq.compiler.quantize.dynamic_lstm import dynamic_lstm
from edgeq.compiler.quantize.embeddings import int8_gather
from edgeq.compiler.quantize.expanded import int8_codes
from edgeq.compiler.quantize.linear import Linear, read_linear, scaled_bias
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.quantize.rewriter import Rewriter
from edgeq.compiler.quantize.stored_weights import expand_gemm, expand_matmul, int8_storage
from edgeq.compiler.quantize.walk import Decision, Handler, offered, quantize_nodes
from edgeq.compiler.quantize.weights import Refusal, find_weight
from edgeq.compiler.recipe import Recipe
from edgeq.progress import Progress
from edgeq.targets.capabilities import Capabilities

# Below these, quantizing the activations costs more than the int8 product saves.
MIN_WEIGHTS = 16_384
MIN_OUTPUTS = 64

_STORED = "int8 weights with float arithmetic: ONNX Runtime CPU has no INT8 kernel for it that pays"
_SMALL = "too small for int8 arithmetic to pay: int8 weights with float arithmetic"
_TWO_ACTIVATIONS = (
    "both operands are activations: quantizing both at run time is not faster and loses accuracy"
)
_INT8 = "int8 weights, activations quantized at run time (MatMulInteger)"


def quantize_dynamic(
    model: Model, capabilities: Capabilities, recipe: Recipe, *, progress: Progress | None = None
) -> Quantized:
    """Quantize weights now and activations at run time; the range of an activation is that of its batch.

    Raises:
        UsageError: an override matches nothing or asks for a precision that this scheme has not.
    """
    stored: dict[str, Handler] = {**int8_storage(_STORED), "Gather": _gather}
    dynamic: dict[str, Handler] = {"MatMul": _linear, "Gemm": _linear, "LSTM": dynamic_lstm}
    handlers = {
        **offered(stored, capabilities.weight_only),
        **offered(dynamic, capabilities.int8_dynamic),
    }
    return quantize_nodes(model, capabilities, recipe, {"int8": handlers}, "int8", progress)


def _gather(node: ir.Node, state: Rewriter) -> Decision:
    return int8_gather(node, state, pairs=_tied(node, state) and state.recipe.saturation_safe)


def _tied(node: ir.Node, state: Rewriter) -> bool:
    """Whether the table that ``node`` gathers from is multiplied with as well."""
    table = find_weight(node.inputs[0])
    return table is not None and table.root in state.ties.tables


def _linear(node: ir.Node, state: Rewriter) -> Decision:
    if node.op_type == "MatMul" and not any(_is_stored(value) for value in node.inputs):
        return Decision("fp32", _TWO_ACTIVATIONS, asked=False)
    linear = read_linear(node, state)
    stored = expand_matmul if node.op_type == "MatMul" else expand_gemm
    if isinstance(linear, Refusal):
        return stored(node, state, f"{linear.reason}: int8 weights with float arithmetic")
    if linear.weight.size < MIN_WEIGHTS or linear.n < MIN_OUTPUTS:
        return stored(node, state, _SMALL)
    _replace(node, linear, state)
    return Decision("int8", _INT8)


def _is_stored(value: ir.Value | None) -> bool:
    return value is not None and (value.is_initializer() or find_weight(value) is not None)


def _replace(node: ir.Node, linear: Linear, state: Rewriter) -> None:
    """DynamicQuantizeLinear, MatMulInteger, Cast, Mul: the form that ONNX Runtime fuses to one kernel."""
    name = node.name or ""
    codes, scales = _weight(linear, name, state)
    x, x_scale, x_zero = _quantized_input(node, linear.x, state)
    product = state.node("MatMulInteger", [x, codes, x_zero], f"{name}_int8")
    cast = state.node("Cast", [product.outputs[0]], f"{name}_cast", attributes={"to": int(ir.DataType.FLOAT)})
    scale = state.node("Mul", [x_scale, scales], f"{name}_scale")
    bias, bias_nodes = scaled_bias(linear, name, state)
    result_name = name if bias is None else f"{name}_product"
    result = state.node("Mul", [cast.outputs[0], scale.outputs[0]], result_name, final=bias is None)
    made = [product, cast, scale, result]
    if bias is not None:
        made += [*bias_nodes, state.node("Add", [result.outputs[0], bias], name, final=True)]
    state.replace(node, made)


def _weight(linear: Linear, name: str, state: Rewriter) -> tuple[ir.Value, ir.Value]:
    """int8 codes [K, N] and float32 scales [N]; rows that are stored as [N, K] pass a Transpose."""
    pairs = 1 - linear.channel_axis if state.recipe.saturation_safe else None
    codes, scales = int8_codes(linear.weight, (linear.channel_axis,), state, pairs_along=pairs)
    if linear.stored_rows:
        codes = _transposed(codes, state)
    return codes, _flat_scales(scales, linear, name, state)


def _transposed(codes: ir.Value, state: Rewriter) -> ir.Value:
    key = ("transposed", codes)
    if key not in state.cache:
        node = state.node("Transpose", [codes], f"{codes.name}_columns", attributes={"perm": [1, 0]})
        state.insert_first([node])
        state.cache[key] = node.outputs[0]
    value: ir.Value = state.cache[key]
    return value


def _flat_scales(scales: ir.Value, linear: Linear, name: str, state: Rewriter) -> ir.Value:
    key = ("flat", scales, linear.alpha)
    if key not in state.cache:
        tensor = scales.const_value
        assert tensor is not None
        flat = tensor.numpy().reshape(-1) * np.float32(linear.alpha)
        state.cache[key] = state.initializer(f"{name}_weight_scale", flat)
    value: ir.Value = state.cache[key]
    return value


def _quantized_input(node: ir.Node, x: ir.Value, state: Rewriter) -> tuple[ir.Value, ir.Value, ir.Value]:
    """The int8 form of ``x``: computed once for all products that read it in the same graph."""
    key = ("dynamic", x, node.graph)
    if key not in state.cache:
        made = state.node("DynamicQuantizeLinear", [x], f"{x.name}_dynamic", outputs=3)
        state.insert_before(node, [made])
        state.cache[key] = tuple(made.outputs)
    codes, scale, zero = state.cache[key]
    return codes, scale, zero
