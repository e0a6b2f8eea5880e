"""What every planned layer is stored as, read from the file."""

from __future__ import annotations

from pathlib import Path

from edgeq.compiler.plan import NodePlan, Plan
from edgeq.targets.base import REMOVED, NodeResult
from edgeq.targets.gguf.files import MODEL
from edgeq.targets.gguf.read import GgufFile
from edgeq.targets.gguf.settings import Settings
from edgeq.targets.gguf.types import precision_of


def verify_file(folder: Path, plan: Plan) -> list[NodeResult]:
    """One result per planned layer, in the plan's order.

    Raises:
        ModelError: the artefact is damaged.
    """
    settings, types = Settings.read(folder), GgufFile(folder / MODEL).types
    names = {one.source.removesuffix(".weight"): one.name for one in settings.tensors}
    return [_result(node, types.get(names.get(node.name, ""))) for node in plan.nodes.values()]


def _result(node: NodePlan, kind: str | None) -> NodeResult:
    planned = node.precision
    if kind is None:
        reason = "it shares the table of embeddings"
        return NodeResult(node.name, node.op_type, planned, REMOVED, "", reason, node.asked)
    actual = precision_of(kind)
    reason = node.reason
    if actual != planned and node.asked:
        reason = f"{node.reason}; stored as {kind}, which the file's type mixes in"
    return NodeResult(node.name, node.op_type, planned, actual, kind, reason, node.asked)
