"""Small models compiled for Core ML, and ways to damage what was written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import edgeq
from edgeq.calibration.types import Array

PACKAGE = "model.mlpackage"


def conv_net(path: Path, seed: int = 0) -> Path:
    """Conv, Relu, residual Add, pooling and a Gemm of 4 classes on [N, 3, 12, 12]."""
    rng = np.random.default_rng(seed)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32) * 0.3, name)

    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["a"], name="add"),
        helper.make_node("Relu", ["a"], ["r2"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], name="head", transB=1),
    ]
    constants = [
        weights("w1", 16, 3, 3, 3), weights("b1", 16), weights("w2", 16, 16, 3, 3), weights("b2", 16),
        weights("w3", 4, 16), weights("b3", 4),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def text_net(path: Path, seed: int = 0) -> Path:
    """An embedding of 128 rows, two linear layers and LayerNormalization on int64 [N, T]."""
    rng = np.random.default_rng(seed)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32) * 0.2, name)

    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], name="embed"),
        helper.make_node("LayerNormalization", ["e", "g", "b"], ["n"], name="norm", axis=-1),
        helper.make_node("MatMul", ["n", "w1"], ["h"], name="up"),
        helper.make_node("Gelu", ["h"], ["u"], name="gelu"),
        helper.make_node("MatMul", ["u", "w2"], ["d"], name="down"),
        helper.make_node("Add", ["d", "e"], ["s"], name="residual"),
        helper.make_node("MatMul", ["s", "head"], ["logits"], name="head_product"),
    ]
    constants = [
        weights("table", 128, 64), numpy_helper.from_array(np.ones(64, np.float32), "g"), weights("b", 64),
        weights("w1", 64, 128), weights("w2", 128, 64), weights("head", 64, 128),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "text",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", "T"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", "T", 128])],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


def images(count: int = 24, seed: int = 1) -> dict[str, Array]:
    """Arrays of the conv net's input with smooth structure."""
    rng = np.random.default_rng(seed)
    return {"x": rng.standard_normal((count, 3, 12, 12)).astype(np.float32)}


def compile_net(model: Path, scheme: str, output: Path, **arguments: Any) -> Path:
    """The artefact's folder; conv nets get calibration data where the scheme needs it."""
    if scheme == "int8-static":
        arguments.setdefault("calibration", images())
    result = edgeq.compile(
        str(model), target="coreml", scheme=scheme, output=output, bench=None, force=True, **arguments
    )
    return result.folder


def edit_program(folder: Path, change: Callable[[Any], None]) -> None:
    """Let ``change`` work on the block of the package's main function."""
    from coremltools.proto import Model_pb2

    path = folder / PACKAGE / "Data" / "com.apple.CoreML" / "model.mlmodel"
    spec = Model_pb2.Model()
    spec.ParseFromString(path.read_bytes())
    function = spec.mlProgram.functions["main"]
    change(function.block_specializations[function.opset])
    path.write_bytes(spec.SerializeToString(deterministic=True))


def operation(block: Any, op_type: str, index: int = 0) -> Any:
    """The ``index``-th operation of a type."""
    return [op for op in block.operations if op.type == op_type][index]


def constant_of(block: Any, op: Any, parameter: str) -> Any:
    """The const operation that feeds a parameter."""
    name = op.inputs[parameter].arguments[0].name
    return next(other for other in block.operations if other.outputs and other.outputs[0].name == name)


def scale_by(folder: Path, factor: float, op_type: str = "quantize", index: int = 0) -> None:
    """Multiply the scale of one operation."""

    def change(block: Any) -> None:
        value = constant_of(block, operation(block, op_type, index), "scale").attributes["val"]
        tensor = value.immediateValue.tensor
        if tensor.HasField("floats"):
            tensor.floats.values[0] *= factor
        else:
            half = np.frombuffer(tensor.bytes.values, np.float16) * np.float16(factor)
            tensor.bytes.values = half.astype(np.float16).tobytes()

    edit_program(folder, change)


def drop(folder: Path, op_type: str, parameter: str = "x", index: int = 0) -> None:
    """Take an operation out and let its readers read its input."""

    def change(block: Any) -> None:
        gone = operation(block, op_type, index)
        source, name = gone.inputs[parameter].arguments[0].name, gone.outputs[0].name
        for op in block.operations:
            for argument in op.inputs.values():
                for binding in argument.arguments:
                    if binding.name == name:
                        binding.name = source
        kept = [op for op in block.operations if op is not gone]
        del block.operations[:]
        block.operations.extend(kept)

    edit_program(folder, change)


def swap_weights(folder: Path) -> None:
    """Exchange the first and the last bytes of the largest stretch of the weights file that is data."""
    path = folder / PACKAGE / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    content = bytearray(path.read_bytes())
    size = 64
    start, end = len(content) // 2, len(content) - size
    content[start : start + size], content[end : end + size] = (
        content[end : end + size],
        content[start : start + size],
    )
    path.write_bytes(bytes(content))
