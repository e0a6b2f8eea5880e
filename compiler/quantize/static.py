"""The scheme ``int8-static``: calibrated 8-bit activations, s8 weights per channel, as QDQ ONNX."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.collect import Observer, collect
from edgeq.calibration.network import filled_up
from edgeq.calibration.sketch import Sketch
from edgeq.calibration.types import Array, Batch, DataSource
from edgeq.compiler.model import Model, save
from edgeq.compiler.plan import Plan, QuantParams
from edgeq.compiler.planner import make_plan
from edgeq.compiler.quantize.bias_correction import InputMeans, correct, correctable
from edgeq.compiler.quantize.channel_noise import ChannelHistograms
from edgeq.compiler.quantize.equalize import EQUALIZATION_SAMPLES, Equalizer
from edgeq.compiler.quantize.equalize import note as equalization_note
from edgeq.compiler.quantize.layers import Layer, find_layers
from edgeq.compiler.quantize.linear_layers import quantize_constants
from edgeq.compiler.quantize.qdq import insert_qdq
from edgeq.compiler.quantize.range_choice import choose_method
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.quantize.result_scales import scale_results
from edgeq.compiler.quantize.smooth import SMOOTHING_SAMPLES, ChannelStatistics, find_groups, note, smooth
from edgeq.compiler.quantize.static_params import activation_params, range_of
from edgeq.compiler.quantize.static_prepare import prepare
from edgeq.compiler.quantize.static_weights import QuantizedWeight
from edgeq.compiler.quantize.zero_points import absorb, give_zero_points
from edgeq.compiler.quantize.zero_points import note as zero_points_note
from edgeq.compiler.recipe import RangeMethod, Recipe
from edgeq.progress import Progress, SilentProgress
from edgeq.targets.capabilities import Capabilities

# Samples whose quantized activations are kept between the segments of the correction, and their bytes.
CORRECTION_SAMPLES = 64
CORRECTION_BYTES = 256 << 20
# Bytes of float outputs that are kept for comparing range methods.
OUTPUT_BYTES = 64 << 20


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
    notes: list[str] = []
    for rescale in (_equalize, _smooth):
        if done := rescale(prepared, plan, capabilities, recipe, data, threads, reporter):
            plan = make_plan(prepared, capabilities, recipe)
            notes += done
    layers = find_layers(prepared.ir.graph, plan, capabilities)
    with tempfile.TemporaryDirectory(prefix="edgeq-") as folder:
        path = Path(folder) / "float.onnx"
        save(prepared, path)
        run = _FloatRun(path, data, threads, reporter)
        sketches = run.calibrate(list(plan.activations), recipe.calibration_samples)
        shifted = give_zero_points(prepared.ir.graph, plan, capabilities, sketches)
        if shifted:
            notes.append(zero_points_note(shifted, len(plan.activations)))
        builder = _Builder(prepared, plan, capabilities, recipe, sketches, notes)
        corrected = correctable(layers) if recipe.bias_correction else []
        recorded = _record(run, recipe, corrected, sketches, prepared)
        method = _method(builder, recorded, Path(folder), threads, reporter)
        built = builder.build(method)
        if corrected:
            correct(
                built.model.ir,
                corrected,
                recorded.means,
                recorded.inputs,
                built.activations,
                built.constants,
                threads,
                reporter,
                in_float=capabilities.simulate_in_float,
            )
    return builder.finish(built, shifted)


def _equalize(
    model: Model,
    plan: Plan,
    capabilities: Capabilities,
    recipe: Recipe,
    data: DataSource,
    threads: int | None,
    progress: Progress,
) -> list[str]:
    """Even out the channels of activations in place where that pays; returns what the user is told."""
    equalizer = Equalizer(model, plan, capabilities)
    if not recipe.smoothing or not equalizer.axes:
        return []
    histograms = ChannelHistograms(equalizer.axes)
    samples = min(EQUALIZATION_SAMPLES, recipe.calibration_samples)
    _observe(model, histograms, data, samples, threads, progress)
    evened = equalizer.apply(histograms, recipe)
    return [equalization_note(evened, len(plan.activations))] if evened else []


def _observe(
    model: Model, observer: Observer, data: DataSource, samples: int, threads: int | None, progress: Progress
) -> None:
    with tempfile.TemporaryDirectory(prefix="edgeq-") as folder:
        path = Path(folder) / "float.onnx"
        save(model, path)
        collect(path, [], data, samples=samples, threads=threads, progress=progress, observers=[observer])


def _smooth(
    model: Model,
    plan: Plan,
    capabilities: Capabilities,
    recipe: Recipe,
    data: DataSource,
    threads: int | None,
    progress: Progress,
) -> list[str]:
    """Smooth ``model`` in place where that pays; returns what the user is told about it."""
    groups = find_groups(model.ir.graph, plan) if recipe.smoothing else []
    if not groups:
        return []
    statistics = ChannelStatistics([group.tensor for group in groups])
    samples = min(SMOOTHING_SAMPLES, recipe.calibration_samples)
    _observe(model, statistics, data, samples, threads, progress)
    scaled = smooth(model, groups, statistics, capabilities, recipe)
    return [note(scaled, groups)] if scaled else []


@dataclass(frozen=True)
class _Built:
    model: Model
    activations: dict[str, QuantParams]
    constants: dict[str, QuantizedWeight]


@dataclass
class _Builder:
    """Makes the QDQ model of any range method from one calibration."""

    model: Model
    plan: Plan
    capabilities: Capabilities
    recipe: Recipe
    sketches: Mapping[str, Sketch]
    notes: list[str] = field(default_factory=list)
    _weights: dict[str, QuantizedWeight] = field(default_factory=dict)

    def build(self, method: RangeMethod) -> _Built:
        """The QDQ model with ranges by ``method``; quantized weights are computed once for all methods."""
        ranges = {
            name: range_of(
                sketch, method, self.recipe.percentile, name, self.plan.activations[name], self.capabilities
            )
            for name, sketch in self.sketches.items()
        }
        result = self.model.clone()
        graph = result.ir.graph
        activations = activation_params(graph, self.plan, self.capabilities, ranges)
        constants = quantize_constants(
            graph, self.plan, self.capabilities, self.recipe, activations, self._weights
        )
        insert_qdq(result, self.plan, self.capabilities, self.recipe, activations, constants)
        return _Built(result, activations, constants)

    def finish(self, built: _Built, shifted: Sequence[str]) -> Quantized:
        """What is done once, to the chosen model: zero points (``shifted``) and results' scales moved."""
        tensors = (built.activations, built.constants)
        absorb(built.model, shifted, self.capabilities, self.recipe, *tensors)
        scale_results(built.model.ir, self.plan, self.capabilities, self.recipe, built.constants)
        self.plan.activations.update({name: params.spec for name, params in built.activations.items()})
        params = {**built.activations, **{name: c.params for name, c in built.constants.items()}}
        return Quantized(built.model, self.plan, params, tuple(self.notes))


def _method(
    builder: _Builder, recorded: _Recorded, folder: Path, threads: int | None, progress: Progress
) -> RangeMethod:
    asked = builder.recipe.range_method
    if asked != "auto" or not builder.plan.activations:
        return "percentile" if asked == "auto" else asked
    method, errors = choose_method(
        lambda candidate: builder.build(candidate).model,
        recorded.inputs[: len(recorded.outputs)],
        recorded.outputs,
        folder,
        threads,
        in_float=builder.capabilities.simulate_in_float,
    )
    tried = ", ".join(f"{name} {-10 * np.log10(max(error, 1e-30)):.1f} dB" for name, error in errors.items())
    builder.notes.append(f"Range method {method}, the best of (output against float): {tried}.")
    progress.note(builder.notes[-1])
    return method


@dataclass
class _FloatRun:
    """The float model on disk and the data that it runs on."""

    path: Path
    data: DataSource
    threads: int | None
    progress: Progress
    seen: int = 0

    def calibrate(self, tensors: list[str], samples: int) -> Mapping[str, Sketch]:
        """The distribution of every tensor over the calibration samples."""
        if not tensors:
            return {}
        statistics = collect(
            self.path, tensors, self.data, samples=samples, threads=self.threads, progress=self.progress
        )
        self.seen = statistics.samples
        return statistics.sketches


@dataclass
class _Recorded:
    """The first samples in batches, with what the float model makes of them."""

    inputs: list[dict[str, Array]]
    outputs: list[dict[str, Array]]
    means: InputMeans


def _record(
    run: _FloatRun, recipe: Recipe, layers: list[Layer], sketches: Mapping[str, Sketch], model: Model
) -> _Recorded:
    """Run the float model over the samples that correction and the choice of the range method work on."""
    means = InputMeans({layer.input: layer for layer in layers})
    recorder = _Recorder(run.data)
    outputs = _OutputRecorder([spec.name for spec in model.outputs])
    if sketches and (layers or recipe.range_method == "auto"):
        count = correction_samples(sketches, run.seen)
        observers: list[Observer] = [means, outputs]
        collect(run.path, [], recorder, samples=count, threads=run.threads, observers=observers)
    fixed = model.inputs[0].fixed_batch if model.inputs else None
    inputs = [filled_up(b, fixed).inputs if fixed and b.size < fixed else b.inputs for b in recorder.taken]
    return _Recorded(inputs, outputs.batches(len(inputs)), means)


class _OutputRecorder:
    """Observer: keeps the model's outputs, batch by batch, until ``OUTPUT_BYTES`` are full."""

    def __init__(self, names: list[str]) -> None:
        self.tensors = names
        self._taken: dict[str, list[Array]] = {name: [] for name in names}
        self._bytes = 0

    def observe(self, name: str, array: Array) -> None:
        if self._taken[name] and self._bytes + array.nbytes > OUTPUT_BYTES:
            return
        self._bytes += array.nbytes
        self._taken[name].append(array.copy())

    def batches(self, count: int) -> list[dict[str, Array]]:
        """One dict per batch; an output that is constant was seen with the first batch only."""
        lengths = [len(taken) for taken in self._taken.values() if len(taken) > 1]
        return [
            {name: taken[min(i, len(taken) - 1)] for name, taken in self._taken.items() if taken}
            for i in range(min([count, *lengths]))
        ]


class _Recorder:
    """A data source that remembers the batches of its last reading."""

    def __init__(self, source: DataSource) -> None:
        self._source = source
        self.size = source.size
        self.has_labels = source.has_labels
        self.task = source.task
        self.taken: list[Batch] = []

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        found = []
        for batch in self._source.batches(batch_size, limit):
            found.append(batch)
            yield batch
        self.taken = found

    def describe(self) -> dict[str, Any]:
        return self._source.describe()


def correction_samples(sketches: Mapping[str, Sketch], seen: int) -> int:
    """How many samples the correction may keep between segments within its memory."""
    sizes = sorted((sketch.count / max(seen, 1) for sketch in sketches.values()), reverse=True)
    per_sample = 4 * sum(sizes[:3])
    return max(1, min(seen, CORRECTION_SAMPLES, int(CORRECTION_BYTES / max(per_sample, 1))))
