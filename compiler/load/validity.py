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
    for field, value in proto.ListFields():
        if field.name not in ("graph", "training_info"):
            _copy(skeleton, field.name, value)
    inputs = {value.name for value in proto.graph.input}
    for field, value in proto.graph.ListFields():
        if field.name != "initializer":
            _copy(skeleton.graph, field.name, value)
    for tensor in proto.graph.initializer:
        external = tensor.data_location == onnx.TensorProto.EXTERNAL
        if not external and tensor.ByteSize() <= _SMALL:
            skeleton.graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            skeleton.graph.input.append(info)
    return skeleton


def _copy(message: onnx.ModelProto | onnx.GraphProto, field: str, value: object) -> None:
    target = getattr(message, field)
    if isinstance(value, str | int):
        setattr(message, field, value)
    elif hasattr(target, "extend"):
        target.extend(value)
    else:
        target.CopyFrom(value)


def _sentence(message: str) -> str:
    """The checker's first line and its context as one line that ends with a full stop."""
    text = _NOISE.sub("", message.replace("\n\n==> Context:", " in"))
    text = " ".join(text.split())
    return text if text.endswith(".") else text + "."
