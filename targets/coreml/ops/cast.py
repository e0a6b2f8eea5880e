"""Cast and CastLike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.elementwise import INTEGERS, NUMBERS
from edgeq.targets.coreml.ops.tensors import scalar
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler

# Only quantize, dequantize and gather make and take these; values of theirs fit int32.
_SMALL = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16)
_SOURCES = (*NUMBERS, ir.DataType.BOOL, *_SMALL)
_MIL_NAME = {
    ir.DataType.FLOAT: "fp32",
    ir.DataType.FLOAT16: "fp16",
    ir.DataType.INT32: "int32",
    ir.DataType.INT64: "int32",
}


def cast(node: OnnxNode) -> Var:
    """Cast: floats to integers towards zero, numbers to booleans by != 0."""
    target = ir.DataType(int(node.attribute("to")))
    # these two say how float8 values are rounded, and float8 is refused
    node.attribute("saturate", 1)
    node.attribute("round_mode", "up")
    return _cast(node, target)


def cast_like(node: OnnxNode) -> Var:
    """CastLike: to the dtype of the second input."""
    node.attribute("saturate", 1)
    node.attribute("round_mode", "up")
    target = node.dtype(1)
    node.constant(1)
    return _cast(node, target)


def _cast(node: OnnxNode, target: ir.DataType) -> Var:
    node.require_dtype(_SOURCES, 0)
    x, source = node.input(0), node.dtype(0)
    if target == source:
        return x
    if target == ir.DataType.BOOL:
        return _to_bool(x, source)
    if target not in _MIL_NAME:
        node.refuse(
            f"it casts {source.name.lower()} to {target.name.lower()}, which Core ML does with other rules",
            "Cast to float32, float16, int32, int64 or bool.",
        )
    name = _MIL_NAME[target]
    return x if source in INTEGERS and name == "int32" else builder().cast(x=x, dtype=name)


def _to_bool(x: Var, source: ir.DataType) -> Var:
    mb = builder()
    if source in _SMALL:
        x = mb.cast(x=x, dtype="int32")
    return mb.not_equal(x=x, y=scalar(x, 0))


HANDLERS: dict[str, Handler] = {"Cast": cast, "CastLike": cast_like}
