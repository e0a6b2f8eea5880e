"""Small models through the target ``openvino``: quantized, written, and what really runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model
from edgeq.compiler.quantize.dispatch import Request, quantize
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.recipe import Recipe
from edgeq.progress import SilentProgress
from edgeq.targets.base import BuildJob, BuildResult, NodeResult
from edgeq.targets.openvino.target import OpenVINOTarget
from tests.support.static_models import Samples, graph, normal


@dataclass(frozen=True)
class Built:
    """An artefact's folder, what its build returned, and its nodes by name."""

    folder: Path
    result: BuildResult
    nodes: dict[str, NodeResult]

    def actual(self, op_type: str) -> list[str]:
        return [node.actual for node in self.nodes.values() if node.op_type == op_type]


def build(
    model: Model,
    scheme: str,
    folder: Path,
    data: Samples | None = None,
    *,
    recipe: Any = None,
    **options: str,
) -> Built:
    """Compile a normalized ``model`` for the target, without measuring."""
    target = OpenVINOTarget()
    wanted = Recipe(scheme=scheme, **(recipe or {}))  # type: ignore[arg-type]
    chosen = target.options(options, wanted)
    made = quantized(model, scheme, data, recipe=recipe, **options)
    folder.mkdir(parents=True, exist_ok=True)
    samples = () if data is None else tuple(batch.inputs for batch in data.batches(1, 2))
    job = BuildJob(made.model, made.plan, wanted, chosen, samples, "2 samples", data=data, threads=1)
    result = target.build(job, folder)
    return Built(folder, result, {node.name: node for node in target.verify(folder, made.plan)})


def quantized(
    model: Model, scheme: str, data: Samples | None = None, *, recipe: Any = None, **options: str
) -> Quantized:
    """What the quantizer that the options name makes of a normalized ``model``."""
    target = OpenVINOTarget()
    wanted = Recipe(scheme=scheme, **(recipe or {}))  # type: ignore[arg-type]
    chosen = target.options(options, wanted)
    quantize_by = target.quantizer(chosen) or quantize
    return quantize_by(Request(model, target.capabilities(chosen), wanted, data, 1, SilentProgress()))


def residual_net() -> Model:
    """Two convolutions, the second with a residual, pooling and a fully connected layer."""
    nodes = [
        ("Conv", ["x", "w", "b"], ["c"], {"pads": [1, 1, 1, 1]}),
        ("Relu", ["c"], ["r"], {}),
        ("Conv", ["r", "w2", "b2"], ["d"], {"pads": [1, 1, 1, 1]}),
        ("Add", ["d", "r"], ["a"], {}),
        ("Relu", ["a"], ["s"], {}),
        ("GlobalAveragePool", ["s"], ["p"], {}),
        ("Flatten", ["p"], ["f"], {}),
        ("Gemm", ["f", "v", "g"], ["y"], {}),
    ]
    weights = {
        "w": normal(16, 3, 3, 3, scale=0.3),
        "w2": normal(16, 16, 3, 3, scale=0.1, seed=4),
        "b": normal(16, seed=5),
        "b2": normal(16, seed=6),
        "v": normal(16, 40, seed=2),
        "g": normal(40, seed=3),
    }
    return graph(nodes, {"x": ["n", 3, 8, 8]}, ["y"], weights)


def images(*shape: int, count: int = 8, seed: int = 1) -> Samples:
    """Samples of the only input ``x``."""
    made: Array = np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)
    return Samples(x=made)
