"""In which precision every planned node runs, as the compiler's layer tables show it."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgeq.compiler.plan import NodePlan, Plan
from edgeq.targets.base import REMOVED, UNPROVEN, NodeResult
from edgeq.targets.capabilities import QUANTIZED
from edgeq.targets.tensorrt.layers.evidence import Evidence, Found, rank
from edgeq.targets.tensorrt.layers.quantized import QuantizedGraph
from edgeq.targets.tensorrt.layers.table import Layer, LayerTable


def node_results(tables: Sequence[LayerTable], graph: ir.Model, plan: Plan) -> list[NodeResult]:
    """One result per planned node, in the plan's order. ``graph`` is the model the engine was built from.

    ``actual`` is ``int8`` or ``fp8`` (rounded inputs and weights), ``int8-weight`` or ``int4`` (float
    arithmetic on weights stored so), ``fp16``, ``bf16``, ``fp32``, ``other`` (no floats), ``removed``, or
    ``unproven`` (planned quantized, but no layer tells). Over several tables the worst counts.
    """
    quantized = QuantizedGraph(graph)
    evidence = _evidence(tables, quantized, static=bool(plan.activations))
    return [_result(planned, quantized.nodes.get(planned.name), evidence) for planned in plan.nodes.values()]


def _evidence(
    tables: Sequence[LayerTable], graph: QuantizedGraph, *, static: bool
) -> dict[tuple[int, ...], Evidence]:
    """Compute capabilities with the same layers → what these show."""
    alike: dict[tuple[Layer, ...], list[int]] = {}
    for table in tables:
        alike.setdefault(table.layers, []).append(table.sm)
    return {tuple(sms): Evidence(layers, graph, static=static) for layers, sms in alike.items()}


def _result(plan: NodePlan, node: ir.Node | None, evidence: dict[tuple[int, ...], Evidence]) -> NodeResult:
    found = {sms: _missing(plan) if node is None else e.of(plan, node) for sms, e in evidence.items()}
    if not found:
        found = {(): _missing(plan)}
    worst = max(found.values(), key=lambda f: rank(f.actual))
    reason = "; ".join(part for part in (plan.reason, _where(found, worst), worst.reason) if part)
    return NodeResult(plan.name, plan.op_type, plan.precision, worst.actual, worst.kernel, reason, plan.asked)


def _missing(plan: NodePlan) -> Found:
    if plan.precision in QUANTIZED:
        return Found(UNPROVEN, reason="the model that the engine was built from has no such node")
    return Found(REMOVED, reason="compiled away before the engine was built")


def _where(found: dict[tuple[int, ...], Found], worst: Found) -> str:
    """The compute capabilities that ``worst`` is about, where others do better."""
    if all(f.actual == worst.actual for f in found.values()):
        return ""
    same = sorted(sm for sms, f in found.items() if f.actual == worst.actual for sm in sms)
    return f"{worst.actual} on SM {', '.join(map(str, same))}"
