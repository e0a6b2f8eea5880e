"""The whole of normalization as one function."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import onnx_ir as ir
from onnxscript.optimizer import optimize_ir
from onnxscript.version_converter import convert_version

from edgeq.compiler.model import Model

CANONICAL_OPSET = 21


@dataclass(frozen=True)
class Normalized:
    """A model in canonical form, what the user should know about it, and how often each rule was applied."""

    model: Model
    notes: list[str]
    applied: dict[str, int] = field(default_factory=dict)


def normalize(model: Model) -> Normalized:
    """Return ``model`` in canonical form; ``model`` itself is not changed and shares its weights."""
    graph = model.ir.clone()
    if graph.opset_imports.get("", 1) < CANONICAL_OPSET:
        convert_version(graph, CANONICAL_OPSET, fallback=True)
        graph.ir_version = max(graph.ir_version, 10)
    optimize_ir(graph)
    _name_nodes(graph)
    return Normalized(replace(model, ir=graph), [])


def _name_nodes(model: ir.Model) -> None:
    for index, node in enumerate(model.graph.all_nodes()):
        if not node.name:
            node.name = f"{node.op_type}_{index}"
