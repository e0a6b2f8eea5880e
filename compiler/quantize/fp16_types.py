"""Which nodes may compute in float16 or bfloat16, read from the operators' own type constraints."""

from __future__ import annotations

from collections.abc import Sequence

import onnx.defs
import onnx_ir as ir

_NAMES = {ir.DataType.FLOAT16: "float16", ir.DataType.BFLOAT16: "bfloat16"}


def takes_half(node: ir.Node, opset: int, dtype: ir.DataType = ir.DataType.FLOAT16) -> str | None:
    """Why ``node`` cannot be ``dtype``, or None.

    Its float32 inputs and outputs must be typed by one of the operator's type variables that allow
    ``dtype``, and outputs must take their type from an input (not from an attribute, as Cast's do).
    """
    floats = (ir.DataType.FLOAT, dtype)
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return "its operator is not a standard one"
    allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    inputs = [
        _type_name(schema.inputs, index)
        for index, value in enumerate(node.inputs)
        if value is not None and value.dtype in floats
    ]
    outputs = [
        _type_name(schema.outputs, index) for index, value in enumerate(node.outputs) if value.dtype in floats
    ]
    if any(f"tensor({_NAMES[dtype]})" not in allowed.get(name, {name}) for name in inputs + outputs):
        return f"its operator has no {_NAMES[dtype]} form"
    if any(name not in inputs for name in outputs):
        return "its output type does not follow from its inputs"
    return None


def _type_name(formals: Sequence[onnx.defs.OpSchema.FormalParameter], index: int) -> str:
    formal = formals[min(index, len(formals) - 1)]
    return str(formal.type_str)
