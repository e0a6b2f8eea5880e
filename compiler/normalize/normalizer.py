"""The whole of normalization as one function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, TopologicalSortPass

from edgeq.compiler.model import Model
from edgeq.compiler.normalize.activations import FuseActivationsPass
from edgeq.compiler.normalize.cleanup import MergeEqualNodesPass, RemoveNoOpsPass, RemoveUnusedPass
from edgeq.compiler.normalize.constants import CanonicalConstantsPass, DeduplicateConstantsPass
from edgeq.compiler.normalize.control_flow import InlineConstantIfPass
from edgeq.compiler.normalize.fold_affine import FoldAffinePass, MatMulAddToGemmPass
from edgeq.compiler.normalize.fold_scale import FoldScalePass
from edgeq.compiler.normalize.folding import FoldConstantsPass
from edgeq.compiler.normalize.metadata import RemoveMetadataPass
from edgeq.compiler.normalize.names import UniqueNamesPass
from edgeq.compiler.normalize.normalizations import FuseNormalizationsPass
from edgeq.compiler.normalize.opset import ConvertOpsetPass
from edgeq.compiler.normalize.padding import ExplicitPadsPass, FoldPadPass
from edgeq.compiler.normalize.pooling import GlobalAveragePoolPass
from edgeq.compiler.normalize.rearrangement import MergeRearrangementsPass
from edgeq.compiler.normalize.shape_arithmetic import FoldShapesPass
from edgeq.compiler.normalize.shapes import InferShapesPass, declared_shapes, restore_declared
from edgeq.errors import InternalError, ModelError

# Every round that changes something makes the graph smaller or more canonical; real models need 3 to 6.
_MAX_ROUNDS = 50


@dataclass(frozen=True)
class Normalized:
    """A model in canonical form, what the user should know about it, and how often each rule was applied."""

    model: Model
    notes: list[str]
    applied: dict[str, int] = field(default_factory=dict)


def normalize(model: Model) -> Normalized:
    """Return ``model`` in canonical form; ``model`` itself is not changed and shares its weights.

    Canonical: opset 21 (or the model's own up to 24; 23 when it has RMSNormalization), no functions,
    constants as initializers of the main graph, unique names, inferred types and shapes, constants and shape
    arithmetic folded, affine operations and padding inside the layers, decomposed operators fused. Inputs and
    outputs keep names, order, types and shapes. The same model gives the same bytes, and a normalized one
    does not change.

    Raises:
        ModelError: the model cannot be brought to the canonical opset.
    """
    graph = model.ir.clone()
    notes = _notes_on_inputs(graph)
    declared = declared_shapes(graph)
    _run(graph, _canonical_form())
    fusions = _fusions()
    _run_until_stable(graph, [ir.passes.PassManager(_simplifications(), steps=_MAX_ROUNDS), *fusions])
    _run(graph, [RemoveUnusedPass(), RemoveMetadataPass(), UniqueNamesPass(), InferShapesPass()])
    restore_declared(graph, declared)
    applied: Counter[str] = Counter()
    for rule in fusions:
        applied.update(getattr(rule, "applied", {}))
    return Normalized(replace(model, ir=graph), notes, dict(sorted(applied.items())))


def _canonical_form() -> list[ir.passes.PassBase]:
    """One form of constants, one opset, no functions."""
    return [
        InlinePass(),
        UniqueNamesPass(),
        CanonicalConstantsPass(),
        TopologicalSortPass(),
        InferShapesPass(),
        ConvertOpsetPass(),
        UniqueNamesPass(),
    ]


def _simplifications() -> list[ir.passes.PassBase]:
    """Less to compute: what the later rules look at is in one form."""
    return [
        InferShapesPass(),
        FoldConstantsPass(),
        FoldShapesPass(),
        InlineConstantIfPass(),
        CanonicalConstantsPass(),
        RemoveNoOpsPass(),
        MergeRearrangementsPass(),
        RemoveUnusedPass(),
        MergeEqualNodesPass(),
        DeduplicateConstantsPass(),
        UniqueNamesPass(),
    ]


def _fusions() -> list[ir.passes.PassBase]:
    """Fewer, larger operators. A mean over the feature map is pooling only when no norm claims it."""
    return [
        InferShapesPass(),
        FuseActivationsPass(),
        FuseNormalizationsPass(),
        MatMulAddToGemmPass(),
        FoldAffinePass(),
        FoldScalePass(),
        ExplicitPadsPass(),
        FoldPadPass(),
        RemoveUnusedPass(),
        GlobalAveragePoolPass(),
        UniqueNamesPass(),
    ]


def _run(model: ir.Model, passes: Sequence[ir.passes.PassBase]) -> bool:
    modified = False
    for step in passes:
        try:
            modified = step(model).modified or modified
        except (ir.passes.PassError, ir.passes.InvariantError) as error:
            raise ModelError(f"The model cannot be normalized: {error}.") from error
    return modified


def _run_until_stable(model: ir.Model, passes: Sequence[ir.passes.PassBase]) -> None:
    for _ in range(_MAX_ROUNDS):
        if not _run(model, passes):
            return
    raise InternalError("Normalizing does not come to an end.", fix="Please report the model.")


def _notes_on_inputs(model: ir.Model) -> list[str]:
    """From IR version 4 on, an input with an initializer is a default that callers could replace."""
    if model.ir_version < 4:
        return []
    names = [v.name for v in model.graph.inputs if v.is_initializer()]
    # Old exporters list every weight as an input: that says nothing.
    if not names or len(names) == len(model.graph.initializers):
        return []
    listed = ", ".join(map(str, names[:5])) + (", …" if len(names) > 5 else "")
    return [f"{len(names)} inputs with a default value are constants now: {listed}."]
