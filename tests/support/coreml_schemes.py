"""Models, data and helpers for the tests of the shared schemes on Core ML."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model
from edgeq.compiler.quantize.dispatch import Request, quantize
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.recipe import Recipe
from edgeq.progress import SilentProgress
from edgeq.targets.capabilities import Capabilities
from edgeq.targets.coreml.capabilities import CAPABILITIES
from edgeq.targets.coreml.frontend.lower import lower
from edgeq.targets.coreml.interpreter.engine import Interpreter
from edgeq.targets.coreml.interpreter.program import read_package
from edgeq.targets.coreml.options import CoreMLOptions
from edgeq.targets.coreml.package.write import write_package
from edgeq.targets.coreml.ports import from_package, to_package
from edgeq.targets.coreml.verification.contents import Contents, package_contents
from edgeq.targets.dimensions import Dimension
from tests.support.static_models import Node, Samples, graph, normal

SMALLEST_HALF = float(np.finfo(np.float16).tiny)


def residual_net() -> Model:
    """Stem, a residual block, pooling, concatenation, a classifier."""
    nodes: list[Node] = [
        ("Conv", ["x", "w0", "b0"], ["c0"], {"pads": [1, 1, 1, 1]}),
        ("Relu", ["c0"], ["r0"], {}),
        ("MaxPool", ["r0"], ["p0"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Conv", ["p0", "w1"], ["c1"], {"pads": [1, 1, 1, 1]}),
        ("Clip", ["c1", "low", "high"], ["r1"], {}),
        ("Conv", ["r1", "w2", "b2"], ["c2"], {"pads": [1, 1, 1, 1]}),
        ("Add", ["c2", "p0"], ["a2"], {}),
        ("LeakyRelu", ["a2"], ["r2"], {"alpha": 0.1}),
        ("Conv", ["r2", "w3", "b3"], ["c3"], {}),
        ("GlobalAveragePool", ["c3"], ["g"], {}),
        ("Flatten", ["g"], ["f"], {}),
        ("Gemm", ["f", "w5", "b5"], ["y"], {}),
    ]

    def w(*shape: int, seed: int) -> Array:
        return normal(*shape, seed=seed, scale=(2 / float(np.prod(shape[1:]))) ** 0.5)

    weights = {
        "w0": w(8, 3, 3, 3, seed=0),
        "w1": w(8, 8, 3, 3, seed=1),
        "w2": w(8, 8, 3, 3, seed=2),
        "w3": w(16, 8, 1, 1, seed=3),
        "w5": w(16, 10, seed=5),
        "low": np.float32(-0.5),
        "high": np.float32(3),
        "b0": normal(8, seed=20, scale=0.1),
        "b2": normal(8, seed=21, scale=0.1),
        "b3": normal(16, seed=22, scale=0.1),
        "b5": normal(10, seed=23),
    }
    return graph(nodes, {"x": ["n", 3, 12, 12]}, ["y"], weights)


IMAGES = Samples(x=normal(64, 3, 12, 12, seed=9))


def transformer_part() -> Model:
    """An embedding, a matrix product with a stack of weights, a Gemm with transB."""
    nodes: list[Node] = [
        ("Gather", ["table", "ids"], ["e"], {}),
        ("MatMul", ["e", "w0"], ["m"], {}),
        ("Tanh", ["m"], ["t"], {}),
        ("MatMul", ["t", "stack"], ["s"], {}),
        ("ReduceMean", ["s", "axes"], ["f"], {"keepdims": 0}),
        ("Gemm", ["f", "w1", "b1"], ["y"], {"transB": 1}),
    ]
    weights = {
        "table": normal(200, 64, seed=1),
        "w0": normal(64, 96, seed=2, scale=0.1),
        "stack": normal(2, 96, 64, seed=3, scale=0.1),
        "axes": np.array([1], np.int64),
        "w1": normal(96, 64, seed=4, scale=0.1),
        "b1": normal(96, seed=5),
    }
    return graph(nodes, {"ids": [2, 7]}, ["y"], weights, types={"ids": 7})


IDS = {"ids": np.random.default_rng(0).integers(0, 200, (2, 7))}


def compiled(
    model: Model,
    scheme: str,
    data: Samples | None = None,
    capabilities: Capabilities = CAPABILITIES,
    **recipe: Any,
) -> Quantized:
    wanted = Recipe.model_validate({"scheme": scheme, **recipe})
    return quantize(Request(model, capabilities, wanted, data, 1, SilentProgress()))


def packaged(
    model: Model,
    inputs: dict[str, Array],
    path: Path,
    *,
    ios: int = 18,
    arithmetic: Literal["float16", "float32"] = "float32",
) -> tuple[Array, Contents]:
    """The package's first output, interpreted, and what it holds."""
    dimensions = {"n": Dimension(1, 64)}
    lowered = lower(model, ios=ios, dimensions=dimensions)
    write_package(
        lowered,
        path / "m.mlpackage",
        ios=ios,
        arithmetic=arithmetic,
        options=CoreMLOptions(dimensions=dimensions),
    )
    feeds = to_package(lowered.signature, inputs)
    results = from_package(lowered.signature, Interpreter(read_package(path / "m.mlpackage")).run(feeds))
    return results["y"], package_contents(path / "m.mlpackage")


def constants(model: Model, op_type: str, port: int) -> list[Array]:
    """The constant at input ``port`` of every node of a type."""
    values = [node.inputs[port] for node in model.ir.graph if node.op_type == op_type]
    return [v.const_value.numpy() for v in values if v is not None and v.const_value is not None]


def scales_of(model: Model) -> Array:
    found = constants(model, "QuantizeLinear", 1) + constants(model, "DequantizeLinear", 1)
    return np.concatenate([scale.reshape(-1) for scale in found])


def assert_exact_in_half(scales: Array) -> None:
    assert (scales >= SMALLEST_HALF).all()
    np.testing.assert_array_equal(scales.astype(np.float16).astype(np.float32), scales)
