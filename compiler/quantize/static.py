"""The scheme ``int8-static``: calibrated u8 activations, per-channel s8 weights, INT32 bias, as QDQ ONNX."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.calibration.affine import Range
from edgeq.calibration.collect import collect
from edgeq.calibration.ranges import choose_range
from edgeq.calibration.sketch import Sketch
from edgeq.calibration.types import Array, Batch, DataSource
from edgeq.compiler.model import Model, save
from edgeq.compiler.plan import QuantParams
from edgeq.compiler.planner import make_plan
from edgeq.compiler.quantize.bias_correction import InputMeans, Layer, correct, find_layers
from edgeq.compiler.quantize.linear_layers import quantize_constants
from edgeq.compiler.quantize.qdq import insert_qdq
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.quantize.static_params import activation_params
from edgeq.compiler.quantize.static_prepare import prepare
from edgeq.compiler.recipe import Recipe
from edgeq.progress import Progress, SilentProgress
from edgeq.targets.base import Capabilities

# Samples whose quantized activations are kept between the segments of the correction, and their bytes.
CORRECTION_SAMPLES = 64
CORRECTION_BYTES = 256 << 20


def quantize_static(
    model: Model,
    capabilities: Capabilities,
    recipe: Recipe,
    data: DataSource,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """Calibrate the normalized ``model`` on ``data`` and write it in QDQ form.

    Raises:
        DataError: the data is empty, does not fit the model, or makes NaN or infinite activations.
        UsageError: an override of the recipe matches nothing.
    """
    reporter = progress or SilentProgress()
    prepared = prepare(model, capabilities, recipe)
    plan = make_plan(prepared, capabilities, recipe)
    graph = prepared.ir.graph
    with tempfile.TemporaryDirectory(prefix="edgeq-") as folder:
        path = Path(folder) / "float.onnx"
        save(prepared, path)
        run = _Run(path, recipe, data, threads, reporter)
        sketches = run.sketches(list(plan.activations))
        ranges = _ranges(sketches, recipe)
        activations = activation_params(graph, plan, capabilities, ranges)
        constants = quantize_constants(graph, plan, capabilities, recipe, activations)
        layers = find_layers(graph, plan, capabilities) if recipe.bias_correction else []
        insert_qdq(prepared, plan, capabilities, recipe, activations, constants)
        if layers:
            samples = correction_samples(sketches, run.seen)
            means, batches = run.input_means(layers, samples)
            correct(prepared.ir, layers, means, batches, activations, constants, threads, reporter)
    params: dict[str, QuantParams] = {**activations, **{n: c.params for n, c in constants.items()}}
    return Quantized(prepared, plan, params)


@dataclass
class _Run:
    """The float model on disk and the data that it runs on."""

    path: Path
    recipe: Recipe
    data: DataSource
    threads: int | None
    progress: Progress
    seen: int = 0

    def sketches(self, tensors: list[str]) -> Mapping[str, Sketch]:
        """The distribution of every tensor over the calibration samples."""
        if not tensors:
            return {}
        statistics = collect(
            self.path,
            tensors,
            self.data,
            samples=self.recipe.calibration_samples,
            threads=self.threads,
            progress=self.progress,
        )
        self.seen = statistics.samples
        return statistics.sketches

    def input_means(self, layers: list[Layer], samples: int) -> tuple[InputMeans, list[dict[str, Array]]]:
        """What the float layers read on the first ``samples``, and these samples in batches."""
        means = InputMeans({layer.input: layer for layer in layers})
        recorded = _Recorded(self.data)
        collect(self.path, [], recorded, samples=samples, threads=self.threads, observers=[means])
        return means, recorded.taken


class _Recorded:
    """A data source that remembers the batches of its last reading."""

    def __init__(self, source: DataSource) -> None:
        self._source = source
        self.size = source.size
        self.has_labels = source.has_labels
        self.task = source.task
        self.taken: list[dict[str, Array]] = []

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        self.taken = []
        for batch in self._source.batches(batch_size, limit):
            self.taken.append(batch.inputs)
            yield batch

    def describe(self) -> dict[str, Any]:
        return self._source.describe()


def correction_samples(sketches: Mapping[str, Sketch], seen: int) -> int:
    """How many samples the correction may keep between segments within its memory."""
    sizes = sorted((sketch.count / max(seen, 1) for sketch in sketches.values()), reverse=True)
    per_sample = 4 * sum(sizes[:3])
    return max(1, min(seen, CORRECTION_SAMPLES, int(CORRECTION_BYTES / max(per_sample, 1))))


def _ranges(sketches: Mapping[str, Sketch], recipe: Recipe) -> dict[str, Range]:
    return {
        name: choose_range(sketch, recipe.range_method, percentile=recipe.percentile, tensor=name)
        for name, sketch in sketches.items()
    }
