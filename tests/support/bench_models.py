"""Small ONNX classifiers for the harness's tests: ``y[N, 3] = x[N, 4] @ weights``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Weights = npt.NDArray[np.float32]

# Every row of the identity picks its own class.
IDENTITY = np.eye(4, 3, dtype=np.float32)


def linear(path: Path, weights: Weights = IDENTITY, *, batch: int | str = "N", state: bool = False) -> Path:
    """Write the classifier to ``path``; with ``state`` it has a first output without an axis of samples."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, weights.shape[1]])]
    if state:
        nodes.append(helper.make_node("ReduceSum", ["y"], ["total"], keepdims=0))
        outputs.insert(0, helper.make_tensor_value_info("total", TensorProto.FLOAT, []))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, weights.shape[0]])]
    graph = helper.make_graph(nodes, "linear", inputs, outputs, [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, path)
    return path


def text_input(path: Path) -> Path:
    """A model of strings, for which random values cannot be made."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.STRING, ["N"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.STRING, ["N"])]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "text", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def one_hot(labels: list[int]) -> npt.NDArray[np.float32]:
    """Inputs that :data:`IDENTITY` classifies as ``labels``."""
    return np.eye(4, dtype=np.float32)[labels]
