"""Bring a model to the canonical opset.

onnx's own converter (C++) sends the whole model through protobuf and gets Upsample, Resize-10, Hardmax and
GroupNormalization wrong (measured); onnxscript's starts at opset 18. So the adapters are here, one for each
operator whose meaning changed between opset 7 and 21. A test checks against the operator schemas that none is
missing.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx.helper import VERSION_TABLE

from edgeq.compiler.normalize.adapters import ADAPTERS
from edgeq.compiler.normalize.editing import nodes
from edgeq.errors import ModelError

MIN_OPSET = 7
MAX_OPSET = 24
# All operators that the quantized formats of today's targets need exist here. Newer models stay as they are:
# what opsets 22 to 24 add are dtypes and new operators, and targets run them.
CANONICAL_OPSET = 21


class ConvertOpsetPass(ir.passes.InPlacePass):
    """Rewrite nodes of older opsets as nodes of the canonical one.

    Requires: canonical constants, types inferred, no functions. Ensures: opset at least ``CANONICAL_OPSET``
    and an IR version that knows it.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        version = model.opset_imports.get("", CANONICAL_OPSET)
        if not MIN_OPSET <= version <= MAX_OPSET:
            raise ModelError(
                f"The model uses ONNX opset {version}; supported are opsets {MIN_OPSET} to {MAX_OPSET}.",
                fix="Export it again with a supported opset, for example 21.",
            )
        if version < CANONICAL_OPSET:
            for node in nodes(model):
                _convert(model, node, version)
        modified = raise_opset(model, CANONICAL_OPSET)
        return ir.passes.PassResult(model, modified)


def _convert(model: ir.Model, node: ir.Node, version: int) -> None:
    if node.domain:
        return
    for since, adapter in ADAPTERS.get(node.op_type, ()):
        if version < since:
            adapter(model, node)
    node.version = None


def raise_opset(model: ir.Model, version: int) -> bool:
    """Declare at least this opset and the IR version that came with it. True when something changed."""
    before = dict(model.opset_imports), model.ir_version
    opset = max(model.opset_imports.get("", 0), version)
    model.opset_imports[""] = opset
    model.ir_version = max(model.ir_version, _ir_version(opset))
    return before != (dict(model.opset_imports), model.ir_version)


def _ir_version(opset: int) -> int:
    for row in VERSION_TABLE:
        if row[2] >= opset:
            return int(row[1])
    raise ModelError(f"ONNX opset {opset} is newer than the installed onnx package knows.")
