"""Scheme ``fp32``: the normalized model as it is, with a plan that says so."""

from __future__ import annotations

from edgeq.compiler.model import Model
from edgeq.compiler.node_names import name_nodes
from edgeq.compiler.overrides import resolve_overrides
from edgeq.compiler.plan import NodePlan, Plan
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.recipe import Recipe
from edgeq.errors import UsageError
from edgeq.progress import Progress
from edgeq.targets.capabilities import Capabilities


def quantize_fp32(
    model: Model, capabilities: Capabilities, recipe: Recipe, *, progress: Progress | None = None
) -> Quantized:
    """Quantize nothing.

    Raises:
        UsageError: an override asks for another precision than fp32, or matches no node.
    """
    del capabilities, progress  # one signature for all schemes
    result = model.clone()
    name_nodes(result.ir)
    nodes = list(result.ir.graph.all_nodes())
    for precision, pattern in resolve_overrides(nodes, recipe.overrides).values():
        if precision != "fp32":
            raise UsageError(
                f"The override {pattern!r} asks for {precision}, but the scheme fp32 quantizes nothing.",
                fix=f"Choose a scheme that knows {precision}, or remove the override.",
            )
    plan = Plan(
        nodes={
            node.name or "": NodePlan(node.name or "", node.op_type, "fp32", "the scheme is fp32", False)
            for node in nodes
        }
    )
    return Quantized(result, plan)
