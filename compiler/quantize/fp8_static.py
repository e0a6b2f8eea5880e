"""Scheme ``fp8-static``: activations and weights in FP8 E4M3 with one scale per tensor, as QDQ ONNX.

E4M3 has 3 bits of mantissa at every magnitude from 2^-6 to 448 (Micikevicius et al., "FP8 Formats for Deep
Learning", 2022): what clipping a range gains for integers, finer steps below, is nothing here, and what it
loses stays. So every scale is the largest magnitude divided by 448. For the same reason one scale serves all
channels of a weight, which a kernel applies at no cost, and smoothing and corrected biases gain nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgeq.calibration.affine import Range, ScaleDtype, float_scale
from edgeq.calibration.collect import collect
from edgeq.calibration.sketch import Sketch
from edgeq.calibration.types import DataSource
from edgeq.compiler.model import Model, save
from edgeq.compiler.overrides import check_precisions, resolve_overrides
from edgeq.compiler.plan import NodePlan, Plan, QuantParams, QuantSpec
from edgeq.compiler.plan_nodes import is_lookup
from edgeq.compiler.planner import make_plan
from edgeq.compiler.quantize.linear_layers import quantize_table
from edgeq.compiler.quantize.qdq import insert_qdq
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.quantize.static_params import range_groups
from edgeq.compiler.quantize.static_prepare import prepare
from edgeq.compiler.quantize.static_weights import QuantizedWeight
from edgeq.compiler.recipe import Override, Recipe
from edgeq.progress import Progress, SilentProgress
from edgeq.targets.capabilities import Capabilities

LARGEST = 448.0
_SPEC = QuantSpec("float8e4m3fn", symmetric=True)
_NUMPY = ir.DataType.FLOAT8E4M3FN.numpy()


def quantize_fp8_static(
    model: Model,
    capabilities: Capabilities,
    recipe: Recipe,
    data: DataSource,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """Calibrate the normalized ``model`` on ``data`` and write it in QDQ form with FP8 numbers.

    The nodes are those that the target's rules of static INT8 take: its kernels have both types.

    Raises:
        DataError: the data is empty, does not fit the model, or makes NaN or infinite activations.
        UsageError: an override matches nothing or asks for a precision other than fp8 or fp32.
    """
    nodes = list(model.ir.graph.all_nodes())
    check_precisions(resolve_overrides(nodes, recipe.overrides), recipe.scheme, ("fp32", "fp8"))
    wanted = _as_int8(recipe)
    result = prepare(model, capabilities, wanted)
    plan = make_plan(result, capabilities, wanted)
    sketches = _calibrate(result, plan, recipe, data, threads, progress or SilentProgress())
    activations = _activations(plan, sketches, capabilities.scale_dtype)
    tables = _tables(result.ir.graph, plan)
    weights = _weights(result.ir.graph, plan, tables, capabilities.scale_dtype)
    insert_qdq(result, plan, capabilities, wanted, activations, weights)
    params = {**activations, **{name: weight.params for name, weight in weights.items()}}
    specs = {name: made.spec for name, made in params.items()}
    return Quantized(result, _named_fp8(plan, tables, specs), params)


def _as_int8(recipe: Recipe) -> Recipe:
    """The recipe for the shared planner, which speaks of INT8."""
    overrides = tuple(
        Override(match=o.match, precision="int8" if o.precision == "fp8" else o.precision)
        for o in recipe.overrides
    )
    return recipe.model_copy(update={"overrides": overrides, "bias_correction": False})


def _calibrate(
    model: Model, plan: Plan, recipe: Recipe, data: DataSource, threads: int | None, progress: Progress
) -> Mapping[str, Sketch]:
    if not plan.activations:
        return {}
    with tempfile.TemporaryDirectory(prefix="edgeq-") as folder:
        path = Path(folder) / "float.onnx"
        save(model, path)
        found = collect(
            path,
            list(plan.activations),
            data,
            samples=recipe.calibration_samples,
            threads=threads,
            progress=progress,
        )
    return found.sketches


def _activations(
    plan: Plan, sketches: Mapping[str, Sketch], scale_dtype: ScaleDtype
) -> dict[str, QuantParams]:
    params: dict[str, QuantParams] = {}
    for group in range_groups(plan):
        span = Range(0.0, 0.0)
        for name in group:
            span = span.union(Range(min(sketches[name].min, 0.0), max(sketches[name].max, 0.0)))
        params.update(dict.fromkeys(group, _params(span, scale_dtype)))
    return params


def _params(span: Range, scale_dtype: ScaleDtype) -> QuantParams:
    scale = float_scale(span, LARGEST, scale_dtype)
    return QuantParams(_SPEC, np.asarray(scale, np.float32), np.zeros((), _NUMPY))


def _tables(graph: ir.Graph, plan: Plan) -> dict[str, str]:
    """Planned lookup → its table, which stays INT8: 7 bits and scales of their own say more than E4M3."""
    return {
        node.name or "": node.inputs[0].name or ""
        for node in graph
        if is_lookup(node) and plan.nodes[node.name or ""].precision == "int8" and node.inputs[0] is not None
    }


def _weights(
    graph: ir.Graph, plan: Plan, tables: Mapping[str, str], scale_dtype: ScaleDtype
) -> dict[str, QuantizedWeight]:
    made, integer = {}, set(tables.values())
    for name, spec in plan.weights.items():
        tensor = graph.initializers[name].const_value
        assert tensor is not None
        numbers = np.asarray(tensor.numpy(), np.float32)
        if name in integer:
            made[name] = quantize_table(numbers, spec, scale_dtype)
        else:
            made[name] = quantize_float8(numbers, scale_dtype)
    return made


def quantize_float8(values: npt.NDArray[np.float32], scale_dtype: ScaleDtype = "float32") -> QuantizedWeight:
    """``values`` as E4M3 numbers, rounded to nearest, with the scale that maps the largest to 448."""
    span = Range(min(float(values.min(initial=0)), 0.0), max(float(values.max(initial=0)), 0.0))
    params = _params(span, scale_dtype)
    codes = np.clip(values / params.scale, -LARGEST, LARGEST).astype(_NUMPY)
    return QuantizedWeight(codes, params)


def _named_fp8(plan: Plan, tables: Mapping[str, str], specs: Mapping[str, QuantSpec]) -> Plan:
    """The plan of the shared planner in the words of this scheme."""
    return replace(
        plan,
        activations={name: specs[name] for name in plan.activations},
        weights={name: specs[name] for name in plan.weights},
        nodes={name: node if name in tables else _node(node) for name, node in plan.nodes.items()},
    )


def _node(node: NodePlan) -> NodePlan:
    precision = "fp8" if node.precision == "int8" else node.precision
    return replace(node, precision=precision, reason=node.reason.replace("INT8", "FP8"))
