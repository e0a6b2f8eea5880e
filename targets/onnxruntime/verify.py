"""What really runs: every planned node, looked up in the graph that ONNX Runtime optimized for this CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx_ir as ir

from edgeq.compiler.plan import NodePlan, Plan
from edgeq.targets.base import REMOVED, STORED_INT8, NodeResult
from edgeq.targets.onnxruntime.fused_nodes import fused_names
from edgeq.targets.onnxruntime.kernels import Kernel, is_kernel_of, kernel_of
from edgeq.targets.onnxruntime.optimized import OptimizedGraph, optimized_graph

_HELPERS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Constant"})
_LAYOUT = _HELPERS | {"ReorderInput", "ReorderOutput", "Cast"}
_ABSORBED = "optimized away or fused into a neighbour"


def verify(path: Path, plan: Plan) -> list[NodeResult]:
    """One result per planned node of the model at ``path``, in the plan's order.

    ``actual`` is ``fp32``, ``fp16``, ``int8``, ``int4``, ``other`` (no floats involved), ``int8-weight``
    (float arithmetic on weights that the file holds in INT8) or ``removed`` (no kernel of its own).

    Raises:
        TargetError: ONNX Runtime cannot load the model.
    """
    lookup = _Lookup(optimized_graph(path), plan)
    return [lookup.result(node) for node in plan.nodes.values()]


def inspect(path: Path) -> list[NodeResult]:
    """The same for a model without a plan: ``planned`` is empty, nothing counts as missed."""
    graph = optimized_graph(path)
    nodes = [node for node in graph.original if node.op_type not in _HELPERS]
    plan = Plan(nodes={n.name or "": NodePlan(n.name or "", n.op_type, "other", "", False) for n in nodes})
    lookup = _Lookup(graph, plan)
    found = [lookup.result(node) for node in plan.nodes.values()]
    return [NodeResult(r.name, r.op_type, "", r.actual, r.kernel, r.reason) for r in found]


class _Lookup:
    """Finds the optimized node that does the work of a planned one."""

    def __init__(self, graph: OptimizedGraph, plan: Plan) -> None:
        self._planned = frozenset(plan.nodes)
        self._by_name = {node.name or "": node for node in graph.original}
        self._fused = {name: node for node in graph.original for name in fused_names(node)}
        self._constants = _Constants(graph.original)
        self._running: dict[ir.Node, list[ir.Node]] = {}
        for node, origins in graph.origins.items():
            for origin in origins:
                self._running.setdefault(origin, []).append(node)

    def result(self, plan: NodePlan) -> NodeResult:
        node = self._by_name.get(plan.name) or self._fused.get(plan.name)
        if node is None:
            return _result(plan, Kernel(REMOVED, ""), "compiled away")
        if self._taken_over(plan, node):
            return _result(plan, Kernel(REMOVED, ""), f"{_ABSORBED} ({node.op_type})")
        group = list(self._group(node))
        running = [found for member in group for found in self._running.get(member, [])]
        kernel = self._kernel(plan, node, running)
        if kernel is None and self._constants.feed(node):
            return _result(plan, Kernel(REMOVED, ""), "folded into a constant when the model loads")
        fused = ""
        if kernel is None:
            kernel, fused = self._neighbour(plan, node)
        if kernel.precision == "fp32" and plan.precision == "int8" and self._constants.expanded(node):
            return _result(plan, Kernel(STORED_INT8, f"{kernel.name}, fp32 arithmetic"), fused)
        return _result(plan, kernel, _runtime_reason(plan, kernel) or fused)

    def _taken_over(self, plan: NodePlan, node: ir.Node) -> bool:
        """Whether the file has one kernel for the planned op and others, and is named after another."""
        return bool(fused_names(node)) and not is_kernel_of(plan.op_type, node)

    def _group(self, node: ir.Node) -> Iterator[ir.Node]:
        """``node`` and the nodes before it that no plan names: what it was rewritten to."""
        seen, waiting = {node}, [node]
        while waiting:
            current = waiting.pop()
            yield current
            for producer in current.predecessors():
                if producer not in seen and (producer.name or "") not in self._planned:
                    seen.add(producer)
                    waiting.append(producer)

    def _kernel(self, plan: NodePlan, node: ir.Node, running: list[ir.Node]) -> Kernel | None:
        """The kernel of the planned op, else whatever carries the node's own name."""
        own = [found for found in running if is_kernel_of(plan.op_type, found)]
        if own:
            return min((kernel_of(found) for found in own), key=_rank)
        direct = [found for found in self._running.get(node, []) if found.op_type not in _LAYOUT]
        return kernel_of(direct[0]) if direct else None

    def _neighbour(self, plan: NodePlan, node: ir.Node) -> tuple[Kernel, str]:
        """A node without a kernel of its own: the one that took it over, after it or before it."""
        for other in _near(node):
            for found in self._running.get(other, []):
                if is_kernel_of(plan.op_type, found) and plan.op_type == node.op_type:
                    return kernel_of(found), f"fused with {other.op_type} {other.name!r}"
        for other in _near(node):
            for found in self._running.get(other, []):
                if found.op_type not in _LAYOUT:
                    return Kernel(REMOVED, ""), f"{_ABSORBED} ({found.op_type})"
        return Kernel(REMOVED, ""), _ABSORBED


def _near(node: ir.Node, depth: int = 4) -> Iterable[ir.Node]:
    """Readers of what ``node`` writes, then writers of what it reads, nearest first."""
    for step in (ir.Node.successors, ir.Node.predecessors):
        front: list[ir.Node] = [node]
        for _ in range(depth):
            front = [other for current in front for other in step(current)]
            yield from front


def _rank(kernel: Kernel) -> int:
    return ("int2", "int4", "int8", "fp16", "fp32", "other").index(kernel.precision)


class _Constants:
    """The values that do not depend on the model's inputs, found in one pass over the nodes in order."""

    def __init__(self, nodes: Iterable[ir.Node]) -> None:
        self._computed: set[ir.Value] = set()
        for node in nodes:
            if self.feed(node):
                self._computed.update(node.outputs)

    def feed(self, node: ir.Node) -> bool:
        """Whether ``node`` reads nothing else."""
        return all(self._known(value) for value in node.inputs if value is not None)

    def expanded(self, node: ir.Node) -> bool:
        """Whether a weight of ``node`` is int8 in the file and made float by constant arithmetic."""
        return any(self._from_int8(value) for value in node.inputs if value is not None)

    def _known(self, value: ir.Value) -> bool:
        return value in self._computed or (value.producer() is None and value.is_initializer())

    def _from_int8(self, value: ir.Value) -> bool:
        producer = value.producer()
        if producer is None:
            return value.const_value is not None and value.const_value.dtype == ir.DataType.INT8
        if producer.op_type not in ("Mul", "Cast", "Transpose") or value not in self._computed:
            return False
        return any(self._from_int8(source) for source in producer.inputs if source is not None)


def _runtime_reason(plan: NodePlan, kernel: Kernel) -> str:
    if plan.precision in ("int8", "int4") and kernel.precision in ("fp32", "fp16"):
        return f"ONNX Runtime found no {plan.precision} kernel for it and runs it between dequantizations"
    if plan.precision == "fp16" and kernel.precision == "fp32":
        return "ONNX Runtime CPU has no fp16 kernel for it and casts around it"
    return ""


def _result(plan: NodePlan, kernel: Kernel, found: str) -> NodeResult:
    reason = "; ".join(part for part in (plan.reason, found) if part)
    return NodeResult(
        plan.name, plan.op_type, plan.precision, kernel.precision, kernel.name, reason, plan.asked
    )
