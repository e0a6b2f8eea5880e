"""Scheme ``fp16`` where the target's build rounds float32 models itself: the plan says where."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgeq.compiler.model import Model
from edgeq.compiler.node_names import name_nodes
from edgeq.compiler.overrides import check_precisions, resolve_overrides
from edgeq.compiler.plan import NodePlan, Plan
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.quantize.walk import computes_floats
from edgeq.compiler.recipe import Precision, Recipe

Wishes = Mapping[str, tuple[Precision, str]]


def plan_fp16(model: Model, recipe: Recipe) -> Quantized:
    """Plan every node in float16 that no override keeps in float32.

    Raises:
        UsageError: an override matches nothing or asks for a precision other than fp16 or fp32.
    """
    result = model.clone()
    name_nodes(result.ir)
    nodes = list(result.ir.graph.all_nodes())
    wanted = resolve_overrides(nodes, recipe.overrides)
    check_precisions(wanted, recipe.scheme, ("fp16", "fp32"))
    return Quantized(result, Plan(nodes={node.name or "": _plan(node, wanted) for node in nodes}))


def _plan(node: ir.Node, wanted: Wishes) -> NodePlan:
    name = node.name or ""
    precision, pattern = wanted.get(name, ("fp16", ""))
    if not computes_floats(node):
        return NodePlan(name, node.op_type, "other", "it computes no floats", False)
    if precision == "fp32":
        reason = f"the override {pattern!r} keeps it in float32"
        return NodePlan(name, node.op_type, "fp32", reason, False, pinned=True)
    reason = f"asked by the override {pattern!r}" if pattern else "the target computes in float16"
    return NodePlan(name, node.op_type, "fp16", reason, True)
