"""Quantizes one decoder layer for what its linear layers read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeq.compiler.weights.activations import rounded_inputs
from edgeq.compiler.weights.collecting import Readers, collect, shared_inputs, stages
from edgeq.compiler.weights.decoder import Decoder, LayerCalls
from edgeq.compiler.weights.diagnosis import outlier_ratio
from edgeq.compiler.weights.floats import stored_floats
from edgeq.compiler.weights.folding import (
    Fold,
    apply_fold,
    changed_tensors,
    differs,
    find_folds,
    storable_scales,
)
from edgeq.compiler.weights.hidden import HiddenStates
from edgeq.compiler.weights.methods import Settings, quantize_calibrated, scales_inputs, search_scales
from edgeq.compiler.weights.spec import Floats, QuantizedWeight, WeightSpec
from edgeq.compiler.weights.statistics import InputStatistics

# Hessians that are collected together.
HESSIAN_BYTES = 1 << 30


@dataclass(frozen=True)
class LayerJob:
    """A decoder layer that is loaded, and what it is called with; ``calls`` by the batch's shape."""

    decoder: Decoder
    index: int
    specs: dict[str, WeightSpec]
    settings: Settings
    states: HiddenStates
    calls: LayerCalls

    @property
    def module(self) -> Any:
        """The decoder layer."""
        return self.decoder.layer(self.index)

    @property
    def unit(self) -> str:
        """Its name."""
        return self.decoder.unit(self.index)

    def linears(self) -> dict[str, WeightSpec]:
        """The layers in it that are quantized, by their name inside it."""
        prefix = f"{self.unit}."
        return {n.removeprefix(prefix): s for n, s in self.specs.items() if n.startswith(prefix)}

    def all_linears(self) -> list[str]:
        """All layers in it that multiply by a matrix, by their name inside it."""
        import torch

        modules = self.module.named_modules()
        return [name for name, module in modules if isinstance(module, torch.nn.Linear)]

    def passes(self) -> Iterator[Callable[[], Any]]:
        """The layer on one batch after the other."""
        return self.decoder.passes(self.index, self.states, self.calls)

    def outputs(self) -> Iterator[Floats]:
        """What the layer, as it is now and as engines run it, returns for every batch."""
        rounded = self.linears() if self.settings.rounds_inputs else ()
        with rounded_inputs(self.module, rounded):
            for run in self.passes():
                yield run().numpy()


@dataclass
class LayerResult:
    """The quantized weights of a decoder layer, tensors that were changed, and what is to be told."""

    weights: dict[str, QuantizedWeight] = field(default_factory=dict)
    rewritten: dict[str, Floats] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=lambda: {"layers": {}})
    unscaled: dict[str, str] = field(default_factory=dict)
    smoothed: dict[str, dict[str, Any]] = field(default_factory=dict)


def quantize_layer(job: LayerJob) -> LayerResult:
    """Quantize the layer's weights one input after the other; the module has the rounded values then."""
    result = LayerResult()
    if not job.linears():
        return result
    if scales_inputs(job.settings.method):
        _scale(job, result)
    groups = shared_inputs(job.module, list(job.linears()), next(job.passes()))
    for found in _statistics(job, groups):
        for readers in list(found):
            _quantize_readers(job, readers, found.pop(readers), result)
    return result


def _statistics(job: LayerJob, groups: Sequence[Readers]) -> Iterator[dict[Readers, InputStatistics]]:
    """What groups read, stage by stage, of the layer as it is then."""
    sizes = {name: job.module.get_submodule(name).in_features for group in groups for name in group}
    hessians = job.settings.hessian
    for stage in stages(groups, sizes, HESSIAN_BYTES) if hessians else [groups]:
        yield collect(job.module, stage, sizes, job.passes, job.settings.empty_statistics)


def _scale(job: LayerJob, result: LayerResult) -> None:
    """Fold the method's scales into the layer, and keep what it changes besides quantized weights."""
    everything = shared_inputs(job.module, job.all_linears(), next(job.passes()))
    quantized = job.linears()
    folds = {f.readers: f for f in find_folds(job.module, everything, next(job.passes()))}
    folds = {readers: fold for readers, fold in folds.items() if not quantized.keys().isdisjoint(readers)}
    for found in _statistics(job, list(folds)):
        for readers in list(found):
            _fold(job, folds[readers], found.pop(readers), result)
    for name in result.record.get("scaled", {}):
        fold = next(fold for fold in folds.values() if fold.readers[0] == name)
        for key, value in changed_tensors(job.module, fold, quantized):
            result.rewritten[f"{job.unit}.{key}"] = value.copy()


def _fold(job: LayerJob, fold: Fold, statistics: InputStatistics, result: LayerResult) -> None:
    """Scale the inputs of ``fold``'s readers where that pays, and where the layer stays the same."""
    quantized = job.linears()
    readers = [name for name in fold.readers if name in quantized]
    if not statistics.tokens:
        return
    scaling = search_scales(
        [job.module.get_submodule(name).weight.numpy() for name in readers],
        statistics,
        [quantized[name] for name in readers],
        job.settings,
        fold.shared,
    )
    names = [f"{job.unit}.{name}" for name in readers]
    if scaling.strength is not None:
        told = {"smoothing": scaling.strength, "smoothed_by": f"{job.unit}.{fold.source}"}
        result.smoothed.update(dict.fromkeys(names, told))
    if (scaling.scales == 1).all():
        return
    scales = storable_scales(job.module, fold, scaling.scales, stored_floats(job.decoder.checkpoint))
    before = next(job.passes())().numpy()
    apply_fold(job.module, fold, scales)
    if differs(before, next(job.passes())().numpy()):
        apply_fold(job.module, fold, np.reciprocal(scales))
        result.unscaled.update(dict.fromkeys(names, "not scaled: the layer would compute something else"))
        for name in names:
            result.smoothed.pop(name, None)
        return
    result.record.setdefault("scaled", {})[fold.readers[0]] = fold.source


def _quantize_readers(
    job: LayerJob, readers: Readers, statistics: InputStatistics, result: LayerResult
) -> None:
    import torch

    for name in readers:
        module, full = job.module.get_submodule(name), f"{job.unit}.{name}"
        done = quantize_calibrated(module.weight.numpy(), job.specs[full], statistics, job.settings)
        module.weight.copy_(torch.from_numpy(done.weight.dequantize()))
        result.weights[full] = done.weight
        why = result.unscaled.get(full)
        known = {**done.record, "outliers": outlier_ratio(statistics), **result.smoothed.get(full, {})}
        result.record["layers"][full] = {**known, **({"fallback": why} if why else {})}
