"""In which precision every planned node runs, as PyTorch's compiler has left it in its final graph."""

from __future__ import annotations

from pathlib import Path

from edgeq.compiler.plan import NodePlan, Plan
from edgeq.targets.base import REMOVED, STORED_INT8, NodeResult
from edgeq.targets.capabilities import QUANTIZED
from edgeq.targets.neural_compressor.annotate import PASSING
from edgeq.targets.neural_compressor.files import MODEL
from edgeq.targets.neural_compressor.placement import Placed, Placement


def verify(folder: Path, plan: Plan) -> list[NodeResult]:
    """One result per planned node of the artefact in ``folder``, in the plan's order.

    ``actual`` is ``int8``; ``int8-weight`` (float values of rows that are stored in INT8); ``fp32``;
    ``other`` (no floats); or ``removed`` (no kernel of its own). What a package really calls is one of the
    checks that prove it (``prove.py``).

    Raises:
        ModelError: the artefact is damaged.
    """
    if not (folder / MODEL).is_file():
        from edgeq.targets.neural_compressor.weight_only.verify import verify as verify_weights

        return verify_weights(folder, plan)
    placement = Placement.read(folder)
    return [_result(node, placement.nodes.get(node.name)) for node in plan.nodes.values()]


def _result(plan: NodePlan, placed: Placed | None) -> NodeResult:
    if placed is None:
        return _told(plan, REMOVED, "", "optimized away or fused into a neighbour")
    if placed.actual == "int8":
        return _told(plan, "int8", placed.kernel, "")
    if placed.actual == "fused":
        if plan.precision in QUANTIZED:
            return _told(plan, "int8", placed.kernel, "")
        return _told(plan, REMOVED, placed.kernel, "computed within the INT8 kernel before it")
    if placed.actual == "stored":
        return _told(plan, STORED_INT8, placed.kernel, "")
    if plan.precision == "other":
        return _told(plan, "other", placed.kernel, "")
    if plan.precision in QUANTIZED and not plan.asked and plan.op_type not in PASSING:
        # An activation has no INT8 arithmetic to miss: it is fused or not.
        why = "computed in float: PyTorch's compiler did not fuse it into the INT8 kernel before it"
        return NodeResult(plan.name, plan.op_type, "fp32", "fp32", placed.kernel, why, asked=False)
    if plan.precision in QUANTIZED:
        # What the plan says of it is not so.
        why = "PyTorch's compiler has no INT8 kernel for it here and computes it in float"
        return _node(plan, "fp32", placed.kernel, why)
    return _told(plan, "fp32", placed.kernel, "")


def _told(plan: NodePlan, actual: str, kernel: str, found: str) -> NodeResult:
    return _node(plan, actual, kernel, "; ".join(part for part in (plan.reason, found) if part))


def _node(plan: NodePlan, actual: str, kernel: str, reason: str) -> NodeResult:
    return NodeResult(plan.name, plan.op_type, plan.precision, actual, kernel, reason, plan.asked)
