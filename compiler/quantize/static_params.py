"""From calibrated ranges to scale and zero point of every activation, one set per shared group."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgeq.calibration.affine import Range, quant_params
from edgeq.calibration.ranges import choose_range
from edgeq.calibration.sketch import Sketch
from edgeq.compiler.plan import Plan, QuantParams, QuantSpec
from edgeq.compiler.plan_nodes import clip_bounds
from edgeq.compiler.recipe import RangeMethod
from edgeq.targets.capabilities import Capabilities


def range_groups(plan: Plan) -> list[tuple[str, ...]]:
    """Every planned activation exactly once, in groups that have one range."""
    shared = {name for group in plan.shared for name in group}
    return [*plan.shared, *((name,) for name in plan.activations if name not in shared)]


def activation_params(
    graph: ir.Graph, plan: Plan, capabilities: Capabilities, ranges: Mapping[str, Range]
) -> dict[str, QuantParams]:
    """Scale and zero point of every planned activation from the ``ranges`` of the tensors."""
    producers = {output.name: node for node in graph for output in node.outputs}
    params: dict[str, QuantParams] = {}
    for group in range_groups(plan):
        spec = plan.activations[group[0]]
        made = _group_params(group, spec, producers, capabilities, ranges)
        params.update(dict.fromkeys(group, made))
    return params


def _group_params(
    group: tuple[str, ...],
    spec: QuantSpec,
    producers: Mapping[str | None, ir.Node],
    capabilities: Capabilities,
    ranges: Mapping[str, Range],
) -> QuantParams:
    makers = [producers[name] for name in group if name in producers]
    for node in makers:
        rule = capabilities.int8_static.get(node.op_type)
        if rule is not None and rule.fixed_output is not None:
            return _params(spec, np.float32(rule.fixed_output[0]), rule.fixed_output[1])
    span = ranges[group[0]]
    for name in group[1:]:
        span = span.union(ranges[name])
    for node in makers:
        span = _within_bounds(node, span)
    return _params(*affine_params(span, spec, capabilities))


def affine_params(
    span: Range, spec: QuantSpec, capabilities: Capabilities
) -> tuple[QuantSpec, np.float32, int]:
    """Scale and zero point of an activation's range, with the spec that the target has for such a range."""
    if spec.symmetric and capabilities.unsigned_positive and span.low >= 0:
        spec = QuantSpec("uint8", symmetric=False)
    assert spec.dtype in ("uint8", "int8")
    return spec, *quant_params(span, spec.dtype, spec.symmetric, capabilities.scale_dtype)


def range_of(
    sketch: Sketch,
    method: RangeMethod,
    percentile: float,
    name: str,
    spec: QuantSpec,
    capabilities: Capabilities,
) -> Range:
    """The range of an activation by ``method``, one-sided where the target has a form for that."""
    one_sided = capabilities.unsigned_positive and sketch.min >= 0
    symmetric = spec.symmetric and not one_sided
    return choose_range(sketch, method, symmetric=symmetric, percentile=percentile, tensor=name)


def _params(spec: QuantSpec, scale: np.float32, zero_point: int) -> QuantParams:
    return QuantParams(spec, np.asarray(scale, np.float32), np.asarray(zero_point, np.dtype(spec.dtype)))


def _within_bounds(node: ir.Node, span: Range) -> Range:
    """A Clip or Relu disappears into the rounding only where the range does not leave its bounds."""
    if node.op_type == "Relu":
        return Range(0.0, span.high)
    bounds = clip_bounds(node) if node.op_type == "Clip" else None
    if bounds is None or bounds[0] != 0:
        return span
    # Rounding the scale to float32 must not push the end of the range over the bound.
    return Range(0.0, min(span.high, bounds[1] * (1 - 2**-20)))
