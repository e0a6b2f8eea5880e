"""The types of values that ONNX Runtime leaves out when it saves its optimized graph."""

from __future__ import annotations

import onnx_ir as ir

# Op type → the input whose type the output has. All others: the first input.
_TYPE_FROM = {
    "QuantizeLinear": 2,
    "DequantizeLinear": 1,
    "QLinearConv": 7,
    "QLinearMatMul": 7,
    "QLinearConcat": 1,
    "QLinearWhere": 1,
    "MatMulIntegerToFloat": 2,
    "GatherBlockQuantized": 2,
    "Where": 1,
}
_FIXED = {"Shape": ir.DataType.INT64, "Size": ir.DataType.INT64, "MatMulInteger": ir.DataType.INT32}


def infer_dtypes(model: ir.Model) -> None:
    """Fill in missing dtypes, in place. New values come from layout changes, which keep the type."""
    for node in model.graph.all_nodes():
        found = _output_dtype(node)
        for output in node.outputs:
            if output.dtype is None and found is not None:
                output.type = ir.TensorType(found)


def _output_dtype(node: ir.Node) -> ir.DataType | None:
    if node.op_type in _FIXED:
        return _FIXED[node.op_type]
    if node.op_type == "Cast":
        return ir.DataType(node.attributes.get_int("to", int(ir.DataType.FLOAT)))
    if node.op_type == "QGemm":
        # Without a scale and a zero point for the output it writes float.
        zero_point = node.inputs[8] if len(node.inputs) > 8 else None
        return ir.DataType.FLOAT if zero_point is None else zero_point.dtype
    index = _TYPE_FROM.get(node.op_type, 0)
    value = node.inputs[index] if index < len(node.inputs) else None
    return None if value is None else value.dtype
