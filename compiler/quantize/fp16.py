"""Scheme ``fp16``: weights and arithmetic in float16, inputs, outputs and unsafe operators in float32.

ONNX Runtime's CPU kernels compute most operators in float32 only: it puts Casts around them, which costs
time. On this target the scheme halves the file; it is no speed-up, and a note says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgeq.compiler.model import Model
from edgeq.compiler.node_names import name_nodes
from edgeq.compiler.overrides import check_precisions, resolve_overrides
from edgeq.compiler.plan import NodePlan
from edgeq.compiler.quantize.fp16_plan import plan_fp16
from edgeq.compiler.quantize.fp16_types import takes_half
from edgeq.compiler.quantize.narrowing import Caster, NarrowConstants
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.quantize.rewriter import Rewriter, drop_unused
from edgeq.compiler.quantize.walk import computes_floats
from edgeq.compiler.recipe import Precision, Recipe
from edgeq.compiler.subgraphs import has_subgraphs
from edgeq.progress import Progress, SilentProgress
from edgeq.targets.capabilities import Capabilities

_UNSAFE = "it overflows or loses accuracy in float16"


def quantize_fp16(
    model: Model, capabilities: Capabilities, recipe: Recipe, *, progress: Progress | None = None
) -> Quantized:
    """Convert every node that may compute in float16; store the weights of the others in it as well.

    Raises:
        UsageError: an override matches nothing or asks for a precision other than fp16 or fp32.
    """
    if capabilities.rounds_itself:
        return plan_fp16(model, recipe)
    result = model.clone()
    name_nodes(result.ir)
    nodes = list(result.ir.graph.all_nodes())
    wanted = resolve_overrides(nodes, recipe.overrides)
    check_precisions(wanted, recipe.scheme, ("fp16", "fp32"))
    state = Rewriter(result.ir, capabilities, recipe)
    weights = NarrowConstants(state)
    precisions = _Precisions(state, weights, wanted)
    caster = Caster(state, weights, shrink=True)
    with (progress or SilentProgress()).task("Converting to fp16", len(nodes)) as advance:
        for node in nodes:
            plan = precisions.plan(node)
            state.plan.nodes[plan.name] = plan
            caster.convert(node, plan.precision == "fp16")
            advance(1)
    caster.restore_outputs(result.ir.graph)
    drop_unused(result.ir)
    state.plan.notes.extend(_notes(weights))
    return Quantized(result, state.plan, {})


@dataclass
class _Precisions:
    """Decides for each node, with the reason."""

    state: Rewriter
    weights: NarrowConstants
    wanted: dict[str, tuple[Precision, str]]

    def plan(self, node: ir.Node) -> NodePlan:
        name = node.name or ""
        precision, pattern = self.wanted.get(name, ("fp16", ""))
        if not computes_floats(node):
            return NodePlan(name, node.op_type, "other", "it computes no floats", False)
        if precision == "fp32":
            reason = f"the override {pattern!r} keeps it in float32"
            return NodePlan(name, node.op_type, "fp32", reason, False, pinned=True)
        refusal = self._refusal(node, forced=bool(pattern))
        if refusal is not None:
            return NodePlan(name, node.op_type, "fp32", refusal, bool(pattern))
        reason = f"asked by the override {pattern!r}" if pattern else "its operator is safe in float16"
        return NodePlan(name, node.op_type, "fp16", reason, True)

    def _refusal(self, node: ir.Node, *, forced: bool) -> str | None:
        if has_subgraphs(node):
            return "control flow keeps float32 at its borders"
        if node.graph is not self.state.model.graph:
            return "it is in a branch or loop body, which keep float32"
        capabilities = self.state.capabilities
        opset = self.state.model.opset_imports.get(node.domain, 0)
        impossible = takes_half(node, opset)
        if impossible is not None:
            return impossible
        if node.op_type in self.state.capabilities.fp16_unsafe and not forced:
            return capabilities.fp16_reasons.get(node.op_type, _UNSAFE)
        large = [value.name for value in node.inputs if value is not None and self.weights.too_large(value)]
        if large:
            return f"its constant {large[0]!r} has values beyond {self.weights.largest:.0f}"
        return None


def _notes(weights: NarrowConstants) -> list[str]:
    found = [
        "fp16 on the CPU: ONNX Runtime computes most operators in float32 and casts before and after "
        "each, so the model gets smaller but not faster; nodes marked so run in fp32."
    ]
    if weights.large:
        shown = ", ".join(weights.large[:3])
        found.append(
            f"{len(weights.large)} constant(s) with values beyond {weights.largest:.0f} "
            f"stay float32: {shown}."
        )
    if weights.lost:
        found.append(
            f"{weights.lost} of {weights.total} weights are below {weights.smallest:.1e} "
            "and become 0 in float16."
        )
    return found
