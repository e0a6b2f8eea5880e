"""Small graphs with weights, for the schemes that need no data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model, Source
from edgeq.compiler.plan import Plan
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.recipe import Recipe
from edgeq.targets.base import BuildJob, NodeResult
from edgeq.targets.onnxruntime.capabilities import CAPABILITIES
from edgeq.targets.onnxruntime.target import OnnxRuntimeTarget

TARGET = OnnxRuntimeTarget()
CAPS = CAPABILITIES
node = helper.make_node

_TYPES = {"f": TensorProto.FLOAT, "i": TensorProto.INT64, "b": TensorProto.BOOL}


def build(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[str, list[Any]]],
    constants: dict[str, Array],
    outputs: Sequence[str] = ("y",),
) -> Model:
    """A model at opset 21; ``inputs`` are name → (``f``, ``i`` or ``b``, shape). Shapes are inferred."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(n, _TYPES[t], s) for n, (t, s) in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    proto = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    return Model(ir.from_proto(proto), Source("onnx", "test", "0" * 64))


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> npt.NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def run(model: Model, folder: Path, feeds: dict[str, Array]) -> dict[str, Array]:
    """Build with the real target and run with ONNX Runtime."""
    folder.mkdir(parents=True, exist_ok=True)
    TARGET.build(BuildJob(model, Plan(), Recipe(scheme="fp32")), folder)
    with TARGET.runner(folder, threads=1) as runner:
        return runner.run(feeds)


def verified(quantized: Quantized, folder: Path) -> dict[str, NodeResult]:
    """What runs, by node name; ``folder`` holds the artefact (see :func:`run`)."""
    return {result.name: result for result in TARGET.verify(folder, quantized.plan)}


def sqnr(reference: Array, other: Array) -> float:
    """Signal to quantization noise in dB."""
    noise = ((reference.astype(np.float64) - other) ** 2).sum()
    return float(10 * np.log10((reference.astype(np.float64) ** 2).sum() / noise)) if noise else np.inf


def constants(path: Path) -> dict[str, Array]:
    """The initializers in a file."""
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def op_types(path: Path) -> list[str]:
    return [n.op_type for n in onnx.load(path).graph.node]
