"""Types and shapes of all values, with symbolic dimensions: ONNX's own inference, refined by names."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from edgeq.compiler.normalize.editing import nodes
from edgeq.compiler.normalize.opset import CANONICAL_OPSET
from edgeq.compiler.normalize.refine_shapes import refine_shapes


class InferShapesPass(ir.passes.InPlacePass):
    """Infer types and shapes from the graph inputs on, believing nothing that the file says of other values.

    Exporters write wrong shapes for inner values and outputs (a fixed batch, say), and constants are computed
    from shapes. Weights do not go through protobuf.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        for node in nodes(model):
            if node.domain:
                continue  # ONNX cannot infer these: what is declared is all there is.
            for value in node.outputs:
                value.shape = None
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
        # The rules of refinement read nodes of the canonical opset.
        if model.opset_imports.get("", 0) >= CANONICAL_OPSET:
            refine_shapes(model)
        return ir.passes.PassResult(model, False)


@dataclass(frozen=True)
class Declared:
    """What a model says about its values: by position for outputs, by name for the others."""

    outputs: list[tuple[ir.TypeProtocol | None, ir.Shape | None]]
    inner: dict[str, ir.Shape]


def declared_shapes(model: ir.Model) -> Declared:
    """Remember the declared types and shapes."""
    inner = {v.name: v.shape for n in nodes(model) for v in n.outputs if v.name and v.shape is not None}
    return Declared([(v.type, v.shape) for v in model.graph.outputs], inner)


def restore_declared(model: ir.Model, declared: Declared) -> None:
    """Give graph outputs their old type and shape; elsewhere use the old ones where nothing was inferred."""
    for node in nodes(model):
        for value in node.outputs:
            if value.shape is None and value.name in declared.inner:
                value.shape = declared.inner[value.name]
    for value, (kind, shape) in zip(model.graph.outputs, declared.outputs, strict=True):
        value.type = kind if kind is not None else value.type
        value.shape = shape if shape is not None else value.shape
