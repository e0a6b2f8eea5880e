"""Scales per channel behind a layer instead of in its weights, for kernels that fuse one scale only.

f(x, s_c · w) = r_c · f(x, t · w) with s_c = t · r_c, for convolutions and matrix products f. The one scale t
that stays with the integers is a power of two, so that every factor r_c = s_c / t has the bits of s_c: the
function stays what it was. Layers that read the same tensor get the same t, or a compiler that makes one
product of them (queries, keys and values) could not.

TensorRT writes the result of a kernel before it applies scales per channel: of a product in float16, where
sums of integers up to 127 overflow, of a convolution in float32, twice the bytes. With t both stay in range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeq.calibration.affine import exact_scales, nearest
from edgeq.compiler.plan import Plan
from edgeq.compiler.plan_nodes import attribute, constant, input_at, is_constant
from edgeq.compiler.quantize.rewriter import Rewriter, drop_unused
from edgeq.compiler.quantize.saturation import Floats
from edgeq.compiler.quantize.static_weights import QuantizedWeight
from edgeq.compiler.recipe import Recipe
from edgeq.targets.capabilities import Capabilities

_LARGEST_HALF = 65504.0
# What rounding a bias may add to a layer's noise, as a share of its deviation.
LOST_SHARE = 0.05


@dataclass(frozen=True)
class _Layer:
    """A layer with scales per channel: ``dequantize`` makes its weights, ``input`` is what it reads.

    ``step``: the scale of its input. ``largest``: sum of the magnitudes of a row of its integers, at most.
    """

    node: ir.Node
    dequantize: ir.Node
    weight: QuantizedWeight
    input: str
    step: float
    largest: float

    @property
    def bound(self) -> float:
        """What the sum of products can reach, in units of the weights' scale."""
        return 127.0 * self.step * self.largest

    @property
    def noise(self) -> Floats:
        """Standard deviation that rounding the input gives each channel of the result."""
        rows = np.moveaxis(self.weight.dequantized(), self.weight.params.spec.axis or 0, 0)
        return np.asarray(self.step / np.sqrt(12) * np.linalg.norm(rows.reshape(len(rows), -1), axis=1))

    @property
    def spread(self) -> tuple[int, ...]:
        """The shape in which a vector of its channels multiplies its result."""
        return (1, -1, *([1] * (self.weight.codes.ndim - 2))) if self.node.op_type == "Conv" else (-1,)


def scale_results(
    model: ir.Model,
    plan: Plan,
    capabilities: Capabilities,
    recipe: Recipe,
    weights: Mapping[str, QuantizedWeight],
) -> None:
    """Rewrite, in place, the layers of the QDQ ``model`` whose rule asks for it (``scales_result``)."""
    edit = Rewriter(model, capabilities, recipe)
    codes = {f"{name}_quantized": weight for name, weight in weights.items()}
    layers: dict[str, list[_Layer]] = {}
    for node in model.graph:
        layer = _layer(node, plan, capabilities, codes)
        if layer is not None:
            layers.setdefault(layer.input, []).append(layer)
    for group in layers.values():
        _rewrite_group(edit, group)
    drop_unused(model)


def _layer(
    node: ir.Node,
    plan: Plan,
    capabilities: Capabilities,
    codes: Mapping[str, QuantizedWeight],
) -> _Layer | None:
    rule = capabilities.int8_static.get(node.op_type)
    planned = plan.nodes.get(node.name or "")
    if rule is None or not rule.scales_result or planned is None or planned.precision != "int8":
        return None
    dequantize, source = _dequantize(node, 1), _dequantize(node, 0)
    if dequantize is None or source is None or not _bias_can_follow(node):
        return None
    weight = codes.get(_read(dequantize))
    if weight is None or weight.params.spec.axis is None:
        return None
    axis = weight.params.spec.axis
    rest = tuple(a for a in range(weight.codes.ndim) if a != axis)
    largest = np.abs(weight.codes.astype(np.int64)).sum(axis=rest).max()
    step = constant(input_at(source, 1))
    if step is None or step.ndim:
        return None
    return _Layer(node, dequantize, weight, _read(source), float(step), float(largest))


def _dequantize(node: ir.Node, index: int) -> ir.Node | None:
    value = input_at(node, index)
    producer = None if value is None else value.producer()
    return producer if producer is not None and producer.op_type == "DequantizeLinear" else None


def _read(dequantize: ir.Node) -> str:
    value = dequantize.inputs[0]
    return "" if value is None else value.name or ""


def _bias_can_follow(node: ir.Node) -> bool:
    """Whether what the layer adds may be added behind it instead."""
    bias = input_at(node, 2)
    if node.op_type == "Conv":
        return bias is None or is_constant(bias)
    return bias is None or attribute(node, "beta", 1.0) == 1.0


def _rewrite_group(edit: Rewriter, layers: Sequence[_Layer]) -> None:
    """One scale for all ``layers``, which read one tensor: so small that no sum overflows float16."""
    limit = min(_LARGEST_HALF / max(layer.bound, 1e-30) for layer in layers)
    largest = min(float(layer.weight.params.scale.max()) for layer in layers)
    one = np.float32(2.0 ** np.floor(np.log2(min(limit, largest))))
    for layer in layers:
        factors = layer.weight.params.scale / one
        if (exact_scales(factors, edit.capabilities.scale_dtype) == factors).all():
            _rewrite(edit, layer, one, factors)  # else the smallest channels would lose bits


def _rewrite(edit: Rewriter, layer: _Layer, one: np.float32, factors: Floats) -> None:
    node, name = layer.node, layer.node.name or layer.node.op_type
    layer.dequantize.replace_input_with(1, edit.initializer(f"{name}_weight_scale", np.asarray(one)))
    layer.dequantize.replace_input_with(
        2, edit.initializer(f"{name}_weight_zero_point", np.zeros((), np.int8))
    )
    layer.dequantize.attributes.clear()
    constant = edit.initializer(f"{name}_scale", factors.reshape(layer.spread))
    made = [edit.node("Mul", [node.outputs[0], constant], f"{name}_Scale")]
    if (bias := input_at(node, 2)) is not None:
        node.resize_inputs(2)
        for part in _parts(edit, layer, bias):
            made.append(edit.node("Add", [made[-1].outputs[0], part], f"{name}_Bias"))
    edit.follow(node, made)


def _parts(edit: Rewriter, layer: _Layer, bias: ir.Value) -> list[ir.Value]:
    """The bias as one summand, or as two where the type of the scales would lose much of it.

    Zero points make biases large (:mod:`.zero_points`). What rounding them loses is the same at every
    position, so averages do not reduce it as they reduce the noise of rounded inputs.
    """
    found = constant(bias)
    if found is None:
        return [bias]
    numbers = np.asarray(found, np.float32)
    lost = numbers - nearest(numbers, edit.capabilities.scale_dtype)
    if not (np.abs(lost) > LOST_SHARE * layer.noise).any():
        return [_spread(edit, layer, bias)]
    parts = {"large": numbers - lost, "small": lost}
    made = [edit.initializer(f"{bias.name}_{part}", some) for part, some in parts.items()]
    return [_spread(edit, layer, part) for part in made]


def _spread(edit: Rewriter, layer: _Layer, bias: ir.Value) -> ir.Value:
    """The bias of a convolution in the shape that adds to its channels; that of a product has it already."""
    if layer.node.op_type != "Conv" or bias.const_value is None:
        return bias
    numbers = np.asarray(bias.const_value.numpy(), np.float32)
    return edit.initializer(f"{bias.name}_spread", numbers.reshape(layer.spread))
