"""The plan of ``int8-static``: graph and capabilities in, precision and reason of every node out."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgeq.compiler.model import Model
from edgeq.compiler.overrides import resolve_overrides
from edgeq.compiler.plan import NodePlan, Plan
from edgeq.compiler.plan_islands import Islands, settle
from edgeq.compiler.plan_nodes import (
    STANDARD_DOMAINS,
    computes_float,
    is_constant,
    is_lookup,
    why_not_int8,
)
from edgeq.compiler.plan_tensors import plan_tensors
from edgeq.compiler.recipe import Precision, Recipe
from edgeq.errors import UsageError
from edgeq.targets.capabilities import Capabilities

# The ops that hold a network's arithmetic: static INT8 always asks for them.
ARITHMETIC = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN"})
_Wishes = Mapping[str, tuple[Precision, str]]


def make_plan(model: Model, capabilities: Capabilities, recipe: Recipe) -> Plan:
    """Decide for every node of the normalized ``model`` whether it runs in INT8, and say why.

    Raises:
        UsageError: an override matches no node, or asks for a precision that the scheme does not have.
    """
    graph = model.ir.graph
    wishes = resolve_overrides(graph.all_nodes(), recipe.overrides)
    _check_wishes(wishes, recipe)
    reasons = {node: _why_not(node, capabilities, wishes) for node in graph}
    islands = settle(
        Islands(
            capabilities.int8_static,
            {node: None for node, reason in reasons.items() if reason is None},
            forced=frozenset(node for node in graph if _wish(wishes, node) == "int8"),
        )
    )
    plan = Plan()
    for node in graph.all_nodes():
        plan.nodes[node.name or ""] = _node_plan(node, islands, reasons, wishes, capabilities)
    plan_tensors(graph, plan, islands, capabilities)
    return plan


def _check_wishes(wishes: _Wishes, recipe: Recipe) -> None:
    for name, (precision, pattern) in wishes.items():
        if precision not in ("fp32", "int8"):
            raise UsageError(
                f"The override {pattern!r} asks for {precision} at node {name!r}, "
                f"which the scheme {recipe.scheme!r} cannot mix in.",
                fix="Use fp32 or int8 in overrides of this scheme.",
            )


def _wish(wishes: _Wishes, node: ir.Node) -> Precision | None:
    found = wishes.get(node.name or "")
    return found[0] if found else None


def _why_not(node: ir.Node, capabilities: Capabilities, wishes: _Wishes) -> str | None:
    if not computes_float(node):
        return "it computes no floating-point values"
    if _wish(wishes, node) == "fp32":
        return f"the recipe keeps it in float ({wishes[node.name or ''][1]})"
    rule = capabilities.int8_static.get(node.op_type)
    if rule is None or node.domain not in STANDARD_DOMAINS:
        default = f"static INT8 leaves {node.op_type} in float on {capabilities.target}"
        return capabilities.float_reasons.get(node.op_type, default)
    if rule.role == "read":
        return rule.note
    if _of_activations(node, capabilities) and _wish(wishes, node) != "int8":
        return "both operands are activations: it stays in float, which is as fast and more exact"
    return why_not_int8(node, rule, capabilities)


def _node_plan(
    node: ir.Node,
    islands: Islands,
    reasons: Mapping[ir.Node, str | None],
    wishes: _Wishes,
    capabilities: Capabilities,
) -> NodePlan:
    name, wish = node.name or "", _wish(wishes, node)
    if islands.is_int8(node):
        why = _why_int8(node, islands, capabilities.int8_form)
        return NodePlan(name, node.op_type, "int8", why, asked=True)
    asked = _asked(node, wish, capabilities)
    if node not in reasons:
        return NodePlan(name, node.op_type, "fp32", "it is inside a control-flow body", asked)
    reason = reasons[node] or islands.dropped[node]
    if not computes_float(node):
        return NodePlan(name, node.op_type, "other", reason, asked=False)
    return NodePlan(name, node.op_type, "fp32", reason, asked, pinned=wish == "fp32")


def _asked(node: ir.Node, wish: Precision | None, capabilities: Capabilities) -> bool:
    if wish is not None:
        return wish == "int8"
    return node.op_type in ARITHMETIC and not _of_activations(node, capabilities)


def _of_activations(node: ir.Node, capabilities: Capabilities) -> bool:
    """Whether the target computes ``node`` in INT8 with weights only, and it has none."""
    rule = capabilities.int8_static.get(node.op_type)
    return rule is not None and rule.of_weights and not any(is_constant(value) for value in node.inputs)


def _why_int8(node: ir.Node, islands: Islands, form: str) -> str:
    rule = islands.rule(node)
    if is_lookup(node):
        return "its table is stored in INT8, the rows it reads are widened"
    if rule.role == "absorb":
        return rule.note or "absorbed by the rounding of its result"
    if rule.same_range:
        return "moves INT8 values; its output has the range of its input"
    kernel = f" ({rule.note})" if rule.note else ""
    if rule.float_output and not islands.writes_int8(node):
        return f"{form}{kernel} with a float result for its consumers"
    return f"{form}{kernel}"
