"""The last step before an artefact is written: kernels that ONNX Runtime has and does not find by itself."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgeq.compiler.model import Model
from edgeq.compiler.normalize.shapes import InferShapesPass, declared_shapes, restore_declared
from edgeq.compiler.quantize.rewriter import Editor
from edgeq.targets.onnxruntime.fuse_attention import fuse_attention
from edgeq.targets.onnxruntime.fuse_normalization import keep_apart
from edgeq.targets.onnxruntime.fuse_product import fuse_bias
from edgeq.targets.onnxruntime.versions import has_attention, rounds

_WITHOUT_ATTENTION: tuple[Callable[[ir.Node, Editor], bool], ...] = (fuse_bias, keep_apart)
FUSIONS = (fuse_attention, *_WITHOUT_ATTENTION)


def fuse_kernels(model: Model) -> Model:
    """A copy of the quantized ``model`` with faster kernels of ONNX Runtime; itself where none fits."""
    result = model.clone()
    declared = declared_shapes(result.ir)
    InferShapesPass()(result.ir)
    restore_declared(result.ir, declared)
    edit = Editor(result.ir)
    fused = False
    for fusion in FUSIONS if has_attention(rounding=rounds(model)) else _WITHOUT_ATTENTION:
        for node in list(result.ir.graph):
            if node.graph is not None:
                fused |= fusion(node, edit)
        RemoveUnusedNodesPass()(result.ir)
    return result if fused else model
