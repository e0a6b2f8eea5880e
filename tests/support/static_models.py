"""Small float graphs, data and helpers for the tests of the static planner and quantizer."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from edgeq.calibration.types import Array, Batch
from edgeq.compiler.model import Model, Source
from edgeq.compiler.normalize import normalize
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.quantize.static import quantize_static
from edgeq.compiler.recipe import Recipe
from edgeq.targets.onnxruntime.capabilities import CAPABILITIES

Shape = Sequence[int | str]
Node = tuple[str, Sequence[str], Sequence[str], dict[str, Any]]


class Samples:
    """A data source over arrays in memory."""

    has_labels = False
    task = "unknown"

    def __init__(self, **arrays: Array) -> None:
        self.arrays = arrays
        self.size = len(next(iter(arrays.values())))

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        count = self.size if limit is None else min(limit, self.size)
        for first in range(0, count, batch_size):
            last = min(first + batch_size, count)
            yield Batch({n: a[first:last] for n, a in self.arrays.items()}, None, last - first)

    def describe(self) -> dict[str, Any]:
        return {}


def graph(
    nodes: Sequence[Node],
    inputs: dict[str, Shape],
    outputs: Sequence[str],
    weights: dict[str, Array],
    *,
    types: dict[str, int] | None = None,
) -> Model:
    """A normalized model of float32 inputs (or ``types``), opset 21."""
    kinds = types or {}
    made = helper.make_graph(
        [helper.make_node(op, list(i), list(o), name=f"{op}_{o[0]}", **attrs) for op, i, o, attrs in nodes],
        "g",
        [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), None) for n in outputs],
        [numpy_helper.from_array(np.asarray(w), n) for n, w in weights.items()],
    )
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    model = Model(ir.from_proto(proto), Source("onnx", "test", "0" * 64))
    return normalize(model).model


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Array:
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


def quantize(model: Model, data: Samples, **recipe: Any) -> Quantized:
    return quantize_static(model, CAPABILITIES, Recipe(scheme="int8-static", **recipe), data, threads=1)


def run(model: Model, inputs: dict[str, Array], *, optimize: bool = True) -> list[Array]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    proto = ir.to_proto(model.ir).SerializeToString()
    session = ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def optimized_ops(model: Model) -> Counter[str]:
    """How often each op stands in the graph that ONNX Runtime really runs."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        proto = ir.to_proto(model.ir).SerializeToString()
        ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
        return Counter(n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node)


def sqnr(reference: Array, got: Array) -> float:
    """Signal over noise in dB."""
    noise = float(np.square(reference.astype(np.float64) - got).sum())
    return 10 * np.log10(float(np.square(reference.astype(np.float64)).sum()) / max(noise, 1e-30))


def precisions(result: Quantized) -> dict[str, str]:
    """Node name → planned precision."""
    return {node.name: node.precision for node in result.plan.nodes.values()}
