"""Validity by the ONNX checker and type inference, on a copy of the graph without its large weights."""

from __future__ import annotations

import re

import onnx

from edgeq.errors import ModelError

# Larger weights become graph inputs of the copy: the checker serialises what it checks, and needs the values
# of small ones only (shapes, axes). Their sizes are checked in `tensors`.
_SMALL = 1024
_TYPE_ERROR = re.compile(r"[^\n]*(?:inconsistent type|differs from existing elem type)[^\n]*")
_NOISE = re.compile(r"\[(?:Shape|Type)InferenceError\]\s*|Inference error\(s\):\s*")


def check_valid(proto: onnx.ModelProto, name: str) -> None:
    """Check structure, attributes and element types.

    Shapes that contradict each other are left to the runtime: exporters write wrong ones, and ONNX Runtime
    goes by what it infers itself.

    Raises:
        ModelError: with the first thing that is wrong, in one sentence.
    """
    skeleton = _without_weights(proto)
    try:
        onnx.checker.check_model(skeleton)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelError(f"{name} is not a valid ONNX model: {_sentence(str(error))}") from error
    try:
        onnx.shape_inference.infer_shapes(skeleton, check_type=True, strict_mode=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        if found := _TYPE_ERROR.search(str(error)):
            raise ModelError(f"{name} is not a valid ONNX model: {_sentence(found[0])}") from error


def _without_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    skeleton = onnx.ModelProto()
    _copy_fields(proto, skeleton, without=("graph", "training_info"))
    _copy_graph(proto.graph, skeleton.graph)
    inputs = {value.name for value in proto.graph.input}
    for tensor in proto.graph.initializer:
        if _is_small(tensor):
            skeleton.graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            skeleton.graph.input.append(info)
    return skeleton


def _copy_graph(graph: onnx.GraphProto, copy: onnx.GraphProto) -> None:
    """Everything but the initializers; large tensors in attributes lose their values."""
    _copy_fields(graph, copy, without=("initializer", "node"))
    for node in graph.node:
        _copy_node(node, copy.node.add())


def _copy_node(node: onnx.NodeProto, copy: onnx.NodeProto) -> None:
    _copy_fields(node, copy, without=("attribute",))
    for attribute in node.attribute:
        target = copy.attribute.add()
        _copy_fields(attribute, target, without=("t", "tensors", "g", "graphs"))
        if attribute.HasField("t"):
            target.t.CopyFrom(_lean(attribute.t))
        target.tensors.extend(_lean(tensor) for tensor in attribute.tensors)
        if attribute.HasField("g"):
            _copy_branch(attribute.g, target.g)
        for inner in attribute.graphs:
            _copy_branch(inner, target.graphs.add())


def _copy_branch(graph: onnx.GraphProto, copy: onnx.GraphProto) -> None:
    _copy_graph(graph, copy)
    copy.initializer.extend(_lean(tensor) for tensor in graph.initializer)


def _is_small(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location != onnx.TensorProto.EXTERNAL and tensor.ByteSize() <= _SMALL


def _lean(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """The tensor itself when it is small, else an empty one of its type."""
    if _is_small(tensor):
        return tensor
    return onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=[0], raw_data=b"")


def _copy_fields(
    message: onnx.ModelProto | onnx.GraphProto | onnx.NodeProto | onnx.AttributeProto,
    copy: onnx.ModelProto | onnx.GraphProto | onnx.NodeProto | onnx.AttributeProto,
    without: tuple[str, ...],
) -> None:
    for field, value in message.ListFields():
        if field.name in without:
            continue
        target = getattr(copy, field.name)
        if hasattr(target, "extend"):
            target.extend(value)
        elif hasattr(target, "CopyFrom"):
            target.CopyFrom(value)
        else:
            setattr(copy, field.name, value)


def _sentence(message: str) -> str:
    """The checker's first line and its context as one line that ends with a full stop."""
    text = _NOISE.sub("", message.replace("\n\n==> Context:", " in"))
    text = " ".join(text.split())
    return text if text.endswith(".") else text + "."
