"""Shapes where a file does not tell them."""

from __future__ import annotations

from onnx_ir.passes.common import ShapeInferencePass

from edgeq.compiler.model import Model
from edgeq.quiet import quiet


def with_shapes(model: Model) -> Model:
    """``model`` itself, or a copy with what ONNX infers where values have no declared shape.

    Models that break rules of ONNX are inferred as far as that goes. Weights are not read.
    """
    if all(value.shape is not None for node in model.ir.graph.all_nodes() for value in node.outputs):
        return model
    copy = model.clone()
    with quiet():  # a model that breaks ONNX is left as it is, with a traceback in the log
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(copy.ir)
    return copy
