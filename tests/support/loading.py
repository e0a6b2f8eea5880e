"""Small ONNX models for the tests of loading, and a progress that remembers what was said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper, parser

from edgeq.compiler.model import Model
from edgeq.progress import Advance

ONE_LINE = '<ir_version: 8, opset_import: ["":17]>'


class Recorder:
    """A progress that keeps notes, and the steps done of each task."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: dict[str, int] = {}

    @contextmanager
    def task(self, description: str, total: int | None = None) -> Iterator[Advance]:
        self.steps[description] = 0

        def advance(steps: int) -> None:
            self.steps[description] += steps

        yield advance

    def note(self, message: str) -> None:
        self.notes.append(message)


def write_text(path: Path, graph: str, header: str = ONE_LINE) -> Path:
    """Write a model given as ONNX text."""
    path.write_bytes(parser.parse_model(f"{header}\n{graph}").SerializeToString())
    return path


def dense_model(weight: TensorProto, opset: int = 17, ir_version: int = 8) -> onnx.ModelProto:
    """``y = x @ w`` with ``w`` [4, 3] float32."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "dense")], "g", [x], [y], [weight]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def external(name: str, dims: list[int], dtype: int = TensorProto.FLOAT, **entries: object) -> TensorProto:
    """A tensor whose data lies in a file; ``entries`` are its external_data keys."""
    tensor = TensorProto(name=name, data_type=dtype, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def weights(seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal((4, 3), dtype=np.float32)


def run(model: Model, feed: dict[str, Any]) -> list[Any]:
    """Run a loaded model with ONNX Runtime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(ir.to_proto(model.ir).SerializeToString(), options)
    return list(session.run(None, feed))
