"""Constant operands of the INT8 nodes: weights, biases, and constants in the place of activations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgeq.calibration.affine import Range, ScaleDtype
from edgeq.compiler.plan import Plan, QuantParams, QuantSpec
from edgeq.compiler.plan_nodes import activation_ports, constant, input_at, is_lookup, weight_ports
from edgeq.compiler.quantize.layer_geometry import groups, is_depthwise, kernel_order
from edgeq.compiler.quantize.saturation import Floats
from edgeq.compiler.quantize.static_params import affine_params
from edgeq.compiler.quantize.static_weights import QuantizedWeight, quantize_weight
from edgeq.compiler.recipe import Recipe
from edgeq.errors import InternalError
from edgeq.targets.capabilities import Capabilities, OpRule

Array = npt.NDArray[np.generic]

# INT32 accumulators hold the bias and the sum of products: the bias may take a quarter of their range.
BIAS_LIMIT = 2.0**29


def quantize_constants(
    graph: ir.Graph,
    plan: Plan,
    capabilities: Capabilities,
    recipe: Recipe,
    activations: Mapping[str, QuantParams],
    known: dict[str, QuantizedWeight],
) -> dict[str, QuantizedWeight]:
    """The integers of all constants in ``plan.weights``, by tensor name.

    ``known`` keeps quantized weights from call to call: with other activations they stay the same, unless a
    bias needs a larger scale.
    """
    made: dict[str, QuantizedWeight] = {}
    for node in graph:
        planned = plan.nodes.get(node.name or "")
        rule = capabilities.int8_static.get(node.op_type)
        if planned is None or planned.precision != "int8" or rule is None:
            continue
        if is_lookup(node):
            made.update(_table(node, plan, capabilities, known))
            continue
        made.update(_linear(node, plan, capabilities, recipe, activations, known))
        made.update(_operands(node, rule, plan, capabilities))
    return made


def _table(
    node: ir.Node, plan: Plan, capabilities: Capabilities, known: dict[str, QuantizedWeight]
) -> dict[str, QuantizedWeight]:
    value = node.inputs[0]
    numbers = constant(value)
    if value is None or numbers is None:
        raise InternalError(f"{node.name!r} is no table lookup.")
    name = value.name or ""
    if name not in known:
        table = np.asarray(numbers, np.float32)
        known[name] = quantize_table(table, plan.weights[name], capabilities.scale_dtype)
    return {name: known[name]}


def quantize_table(table: Floats, spec: QuantSpec, scale_dtype: ScaleDtype) -> QuantizedWeight:
    """A scale per column where only the rows that were read are widened: they have the table's columns."""
    axes = range(table.ndim)
    order = tuple(axes) if spec.axis is None else (spec.axis, *(a for a in axes if a != spec.axis))
    depth = (
        int(np.prod([table.shape[axis] for axis in order[1:]])) if spec.axis is not None else table.shape[-1]
    )
    floor = np.asarray(np.finfo(np.float32).tiny, np.float32)
    return quantize_weight(table, spec, order, depth, floor=floor, pairs=False, scale_dtype=scale_dtype)


def _operands(
    node: ir.Node, rule: OpRule, plan: Plan, capabilities: Capabilities
) -> dict[str, QuantizedWeight]:
    """Constants at ports that the kernel wants quantized like activations."""
    found = {}
    for index in activation_ports(node, rule):
        value = input_at(node, index)
        numbers = constant(value)
        if value is not None and numbers is not None:
            spec = plan.weights[value.name or ""]
            found[value.name or ""] = _like_activation(numbers, spec, capabilities)
    return found


def _like_activation(numbers: Array, spec: QuantSpec, capabilities: Capabilities) -> QuantizedWeight:
    values = numbers.astype(np.float32)
    span = Range(min(0.0, float(values.min())), max(0.0, float(values.max())))
    spec, scale, zero = affine_params(span, spec, capabilities)
    info = np.iinfo(spec.dtype)
    codes = np.clip(np.rint(values / scale) + zero, info.min, info.max).astype(spec.dtype)
    return QuantizedWeight(
        codes, QuantParams(spec, np.asarray(scale, np.float32), np.asarray(zero, spec.dtype))
    )


def _linear(
    node: ir.Node,
    plan: Plan,
    capabilities: Capabilities,
    recipe: Recipe,
    activations: Mapping[str, QuantParams],
    known: dict[str, QuantizedWeight],
) -> dict[str, QuantizedWeight]:
    found: dict[str, QuantizedWeight] = {}
    rule = capabilities.int8_static[node.op_type]
    rounded_bias = rule.bias is not None and not capabilities.float_bias
    bias = input_at(node, rule.bias) if rounded_bias and rule.bias is not None else None
    bias_numbers = constant(bias)
    for index in weight_ports(node, rule):
        value = input_at(node, index)
        numbers = constant(value)
        if value is None or numbers is None:
            raise InternalError(f"{node.name!r} has no constant weights.")
        name = value.name or ""
        spec = plan.weights[name]
        input_scale = _input_scale(node, rule, activations)
        channels = numbers.shape[spec.axis] if spec.axis is not None else 1
        floor = _floor(bias_numbers, input_scale, spec, channels)
        weight = known.get(name)
        if weight is None or (weight.params.scale < floor).any():
            weight = _quantize(node, np.asarray(numbers, np.float32), spec, floor, capabilities, recipe)
            known[name] = weight
        found[name] = weight
        if bias is not None and bias_numbers is not None:
            found[bias.name or ""] = quantize_bias(
                np.asarray(bias_numbers, np.float32).reshape(-1), input_scale, weight.params.scale
            )
    return found


def _quantize(
    node: ir.Node,
    weights: Floats,
    spec: QuantSpec,
    floor: Floats,
    capabilities: Capabilities,
    recipe: Recipe,
) -> QuantizedWeight:
    order = kernel_order(node, weights.ndim)
    pairs = capabilities.saturates and recipe.saturation_safe and not is_depthwise(node, weights)
    filled = pairs and capabilities.pairs_in_position and _is_odd(node, weights)
    if filled:
        weights = np.pad(weights, [(0, int(axis == 1)) for axis in range(weights.ndim)])
    ordered = [weights.shape[axis] for axis in order]
    depth = int(np.prod(ordered[1:])) if node.op_type in ("Conv", "ConvTranspose") else ordered[-1]
    made = quantize_weight(
        weights,
        spec,
        order,
        depth,
        floor=floor,
        pairs=pairs,
        scale_dtype=capabilities.scale_dtype,
    )
    return replace(made, codes=np.ascontiguousarray(made.codes[:, :-1])) if filled else made


def _is_odd(node: ir.Node, weights: Floats) -> bool:
    """Whether the last channel of every kernel position has no neighbour within it."""
    return node.op_type == "Conv" and groups(node) == 1 and weights.shape[1] % 2 == 1


def _input_scale(node: ir.Node, rule: OpRule, activations: Mapping[str, QuantParams]) -> np.float32:
    value = input_at(node, activation_ports(node, rule)[0])
    params = None if value is None else activations.get(value.name or "")
    if params is None:
        raise InternalError(f"{node.name!r} has no quantized input.")
    return np.float32(params.scale)


def _floor(bias: object, input_scale: np.float32, spec: QuantSpec, channels: int) -> Floats:
    """Smallest weight scale at which the bias fits INT32 and the product of the scales is a normal number."""
    smallest = np.float32(1e-30) / input_scale
    if bias is None:
        return np.asarray(smallest, np.float32)
    magnitude = np.abs(np.asarray(bias, np.float64)).reshape(-1)
    needed = magnitude / (float(input_scale) * BIAS_LIMIT)
    if spec.axis is None:
        return np.asarray(max(float(needed.max(initial=0)), float(smallest)), np.float32)
    if needed.size != channels:  # a grouped ConvTranspose: the groups share their scales
        needed = needed.reshape(-1, channels).max(axis=0)
    return np.maximum(needed, smallest).astype(np.float32)


def quantize_bias(bias: Floats, input_scale: np.float32, weight_scale: Floats) -> QuantizedWeight:
    """INT32 bias at the scale of the kernel's accumulator: input scale times weight scale."""
    if weight_scale.ndim and weight_scale.size != bias.size:  # groups that share their scales
        weight_scale = np.tile(weight_scale, bias.size // weight_scale.size)
    scale = np.asarray(input_scale * weight_scale, np.float32)
    codes = np.rint(bias.astype(np.float64) / scale.astype(np.float64)).astype(np.int32)
    spec = QuantSpec("int32", True, 0 if scale.ndim else None)
    return QuantizedWeight(codes, QuantParams(spec, scale, np.zeros(scale.shape, np.int32)))
