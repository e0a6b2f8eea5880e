"""The loop that all data-free schemes share: every node gets a handler, a precision and a reason."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from edgeq.compiler.model import Model
from edgeq.compiler.node_names import name_nodes
from edgeq.compiler.overrides import check_precisions, resolve_overrides
from edgeq.compiler.plan import NodePlan
from edgeq.compiler.plan import Precision as Planned
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.quantize.rewriter import Rewriter, drop_unused
from edgeq.compiler.recipe import Precision, Recipe
from edgeq.compiler.subgraphs import has_subgraphs
from edgeq.progress import Progress, SilentProgress
from edgeq.targets.capabilities import Capabilities


@dataclass(frozen=True)
class Decision:
    """What a handler did with a node. ``asked``: the scheme means such nodes to be quantized."""

    precision: Planned
    reason: str
    asked: bool = True
    pinned: bool = False


Handler = Callable[[ir.Node, Rewriter], Decision]
Handlers = Mapping[str, Handler]
Prepare = Callable[[Model, list[ir.Node], Rewriter], list[str]]


def quantize_nodes(
    model: Model,
    capabilities: Capabilities,
    recipe: Recipe,
    handlers: Mapping[Precision, Handlers],
    default: Precision,
    progress: Progress | None,
    prepare: Prepare | None = None,
) -> Quantized:
    """Walk over a copy of ``model``: the handler of (precision, op type) rewrites each node.

    Weights are quantized one after the other; the copy lets go of each original as soon as nothing
    reads it. ``prepare`` sees the copy before, and the nodes that are to have the ``default`` precision; what
    it returns are notes.

    Raises:
        UsageError: an override matches nothing, or asks for a precision that the scheme does not know.
    """
    result = model.clone()
    name_nodes(result.ir)
    nodes = list(result.ir.graph.all_nodes())
    wanted = resolve_overrides(nodes, recipe.overrides)
    check_precisions(wanted, recipe.scheme, ("fp32", *handlers))
    state = Rewriter(result.ir, capabilities, recipe)
    if prepare is not None:
        kept = [node for node in nodes if wanted.get(node.name or "", (default, ""))[0] == default]
        state.plan.notes.extend(prepare(result, kept, state))
    with (progress or SilentProgress()).task(f"Quantizing ({recipe.scheme})", len(nodes)) as advance:
        for node in nodes:
            precision, pattern = wanted.get(node.name or "", (default, ""))
            decision = _decide(node, state, handlers, precision, pattern)
            state.plan.nodes[node.name or ""] = NodePlan(
                node.name or "",
                node.op_type,
                decision.precision,
                decision.reason,
                decision.asked,
                decision.pinned,
            )
            advance(1)
    drop_unused(result.ir)
    return Quantized(result, state.plan, state.params)


def _decide(
    node: ir.Node, state: Rewriter, handlers: Mapping[Precision, Handlers], precision: Precision, pattern: str
) -> Decision:
    if not computes_floats(node):
        return Decision("other", "it computes no floats", asked=False)
    if precision == "fp32":
        return Decision("fp32", f"the override {pattern!r} keeps it in float", asked=False, pinned=True)
    handler = handlers[precision].get(node.op_type) if node.domain == "" else None
    if handler is None:
        reason = state.capabilities.weight_reasons.get(node.op_type)
        reason = reason or f"this scheme does not quantize {node.op_type}"
        return Decision("fp32", reason, asked=bool(pattern))
    decision = handler(node, state)
    if not pattern:
        return decision
    return Decision(decision.precision, f"{decision.reason} (override {pattern!r})", asked=True)


def offered(handlers: Handlers, op_types: Collection[str]) -> dict[str, Handler]:
    """The handlers of the op types that the target declares."""
    return {op_type: handler for op_type, handler in handlers.items() if op_type in op_types}


def computes_floats(node: ir.Node) -> bool:
    """Whether a float comes out of ``node`` or of a subgraph of it; unknown types count as floats."""
    if has_subgraphs(node):
        return True
    return any(output.dtype is None or output.dtype.is_floating_point() for output in node.outputs)
