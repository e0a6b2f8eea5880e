"""In which form every planned layer is stored."""

from __future__ import annotations

from pathlib import Path

from edgeq.compiler.plan import NodePlan, Plan
from edgeq.targets.base import UNPROVEN, NodeResult
from edgeq.targets.neural_compressor.weight_only.stored import StoredLayers

_KERNELS = {
    "int4": "int4 weights in the file, expanded to float32 when the model loads",
    "fp16": "float16 weights in the file, float32 arithmetic",
    "fp32": "float32 weights in the file, float32 arithmetic",
}


def verify(folder: Path, plan: Plan) -> list[NodeResult]:
    """One result per planned layer of the artefact in ``folder``, in the plan's order.

    Raises:
        ModelError: the artefact is damaged.
    """
    stored = StoredLayers(folder)
    return [_result(node, stored.form(node.name)) for node in plan.nodes.values()]


def _result(plan: NodePlan, form: str | None) -> NodeResult:
    actual = form or UNPROVEN
    kernel = _KERNELS.get(actual, "")
    reason = plan.reason if form else f"{plan.reason}; the file has no weights of it"
    return NodeResult(plan.name, plan.op_type, plan.precision, actual, kernel, reason, plan.asked)
