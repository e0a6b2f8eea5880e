"""In which form every planned layer lies in the file."""

from __future__ import annotations

from pathlib import Path

from edgeq.compiler.plan import NodePlan, Plan
from edgeq.compiler.weights.spec import WeightSpec
from edgeq.targets.base import UNPROVEN, NodeResult
from edgeq.targets.language.format import Format, Shape
from edgeq.targets.language.read import layer_shapes
from edgeq.targets.language.settings import LanguageSettings
from edgeq.targets.language.stored import StoredFolder

_FLOATS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def verify_folder(folder: Path, form: Format, plan: Plan) -> list[NodeResult]:
    """One result per planned layer, in the plan's order, from the types and shapes in the files' headers.

    Raises:
        ModelError: the artefact is damaged.
    """
    stored, shapes = StoredFolder(folder), layer_shapes(LanguageSettings.read(folder))
    return [_result(node, stored, form, shapes.get(node.name)) for node in plan.nodes.values()]


def _result(
    node: NodePlan, stored: StoredFolder, form: Format, quantized: tuple[WeightSpec, Shape] | None
) -> NodeResult:
    found = _quantized(node.name, stored, form, *quantized) if quantized else None
    found = found or _float(node.name, stored)
    actual, kernel = found or (UNPROVEN, "")
    reason = node.reason if found else f"{node.reason}; the file has no such weights of it"
    return NodeResult(node.name, node.op_type, node.precision, actual, kernel, reason, node.asked)


def _quantized(
    layer: str, stored: StoredFolder, form: Format, spec: WeightSpec, shape: Shape
) -> tuple[str, str] | None:
    """Precision and form of a layer all of whose parts are there as they should be."""
    parts = form.parts(spec, shape)
    for key, part in parts.items():
        tensor = stored.tensors.get(f"{layer}.{key}")
        if tensor is None or tensor.dtype != part.dtype or tensor.shape != part.shape:
            return None
    return spec.precision, f"{', '.join(parts)} in the file"


def _float(layer: str, stored: StoredFolder) -> tuple[str, str] | None:
    tensor = stored.tensors.get(f"{layer}.weight")
    precision = "" if tensor is None else _FLOATS.get(tensor.dtype.name, "")
    return (precision, f"{precision} weights in the file") if precision else None
