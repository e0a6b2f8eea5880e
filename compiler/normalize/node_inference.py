"""ONNX's shape inference for a single node."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from edgeq.compiler.normalize.editing import is_constant
from edgeq.compiler.subgraphs import has_subgraphs

# Constants that inference looks into are shapes, axes and the like.
_DATA_LIMIT = 64
_FAILURES = (onnx.shape_inference.InferenceError, onnx.defs.SchemaError, onnx.checker.ValidationError)


def infer_node(node: ir.Node, opset: int) -> list[tuple[ir.Value, ir.Shape]]:
    """Shapes of the node's outputs, as far as ONNX finds them from its inputs' present types."""
    types = {v.name or "": _type(v) for v in node.inputs if v is not None}
    if has_subgraphs(node):
        return []
    known = {name: kind for name, kind in types.items() if kind is not None}
    if len(known) < len(types):
        return []
    data = {v.name or "": _data(v) for v in node.inputs if v is not None}
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
        inferred = onnx.shape_inference.infer_node_outputs(
            schema,
            ir.serde.serialize_node(node),
            known,
            {name: tensor for name, tensor in data.items() if tensor is not None},
        )
    except _FAILURES:
        return []  # The node stays as unknown as it was; the runtime is the judge of its validity.
    found = [(v, inferred[v.name]) for v in node.outputs if v.name and v.name in inferred]
    shapes = [(v, ir.serde.deserialize_type_proto_for_shape(kind)) for v, kind in found]
    return [(v, shape) for v, shape in shapes if shape is not None]


def _type(value: ir.Value) -> onnx.TypeProto | None:
    if value.type is None:
        return None
    proto = ir.serde.serialize_type(value.type)
    if value.shape is not None and isinstance(value.type, ir.TensorType):
        ir.serde.serialize_shape_into(proto, value.shape)
    return proto


def _data(value: ir.Value) -> onnx.TensorProto | None:
    if not is_constant(value) or value.const_value is None or value.const_value.size > _DATA_LIMIT:
        return None
    return ir.serde.serialize_tensor(value.const_value)
