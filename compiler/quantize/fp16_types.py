"""Which nodes may compute in float16, read from the operators' own type constraints."""

from __future__ import annotations

from collections.abc import Sequence

import onnx.defs
import onnx_ir as ir

_HALF = "tensor(float16)"
_FLOAT = "tensor(float)"


def takes_half(node: ir.Node, opset: int) -> str | None:
    """Why ``node`` cannot be float16, or None.

    Its float32 inputs and outputs must be typed by one of the operator's type variables that allow
    float16, and outputs must take their type from an input (not from an attribute, as Cast's do).
    """
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return "its operator is not a standard one"
    allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    inputs = [
        _type_name(schema.inputs, index)
        for index, value in enumerate(node.inputs)
        if value is not None and value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16)
    ]
    outputs = [
        _type_name(schema.outputs, index)
        for index, value in enumerate(node.outputs)
        if value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16)
    ]
    if any(_HALF not in allowed.get(name, {name}) for name in inputs + outputs):
        return "its operator has no float16 form"
    if any(name not in inputs for name in outputs):
        return "its output type does not follow from its inputs"
    return None


def _type_name(formals: Sequence[onnx.defs.OpSchema.FormalParameter], index: int) -> str:
    formal = formals[min(index, len(formals) - 1)]
    return str(formal.type_str)
