"""Small models through the target ``openvino``: quantized, written, and what really runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model
from edgeq.compiler.quantize.dispatch import Request, quantize
from edgeq.compiler.recipe import Recipe
from edgeq.progress import SilentProgress
from edgeq.targets.base import BuildJob, BuildResult, NodeResult
from edgeq.targets.openvino.target import OpenVINOTarget
from tests.support.static_models import Samples


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
    made = quantize(Request(model, target.capabilities(chosen), wanted, data, 1, SilentProgress()))
    folder.mkdir(parents=True, exist_ok=True)
    samples = () if data is None else tuple(batch.inputs for batch in data.batches(1, 2))
    job = BuildJob(made.model, made.plan, wanted, chosen, samples, "2 samples", data=data, threads=1)
    result = target.build(job, folder)
    return Built(folder, result, {node.name: node for node in target.verify(folder, made.plan)})


def images(*shape: int, count: int = 8, seed: int = 1) -> Samples:
    """Samples of the only input ``x``."""
    made: Array = np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)
    return Samples(x=made)
