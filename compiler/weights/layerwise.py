"""Quantize a checkpoint layer by layer into a store: one decoder layer is in memory at a time.

Hidden states of the calibration text flow through the layers as the artefact will have them: what a layer is
quantized for is what the quantized layers before it return.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.compiler.load.checkpoint import Checkpoint
from edgeq.compiler.plan import Plan
from edgeq.compiler.quantize.dispatch import Request
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.weights.decoder import Decoder, Ids
from edgeq.compiler.weights.diagnosis import outlier_ratio
from edgeq.compiler.weights.floats import rules_of_model
from edgeq.compiler.weights.hidden import HiddenStates, token_batches
from edgeq.compiler.weights.layer import LayerJob, quantize_layer
from edgeq.compiler.weights.methods import Settings, method_of, quantize_calibrated, round_stored
from edgeq.compiler.weights.planning import plan_weights
from edgeq.compiler.weights.result import MethodResult
from edgeq.compiler.weights.rules import CALIBRATED, missing_for_method
from edgeq.compiler.weights.smoothed import smoothing_notes, with_smoothing
from edgeq.compiler.weights.spec import WeightSpec
from edgeq.compiler.weights.store import WeightStore
from edgeq.compiler.weights.work import opened_store

# Units besides the decoder layers: what stands before and beside them, and the output layer.
OUTSIDE, HEAD = "outside", "head"


def quantize_checkpoint(
    request: Request, work: Path, accept: Callable[[Plan], None] | None = None
) -> Quantized:
    """The weights of ``request.model`` as its recipe says, in a folder below ``work``.

    ``accept`` raises where the plan will not do, before any work.

    Raises:
        TargetError: the format cannot store what the recipe asks for, or the model has no decoder layers.
        UsageError: an option that does nothing, or an override that matches nothing.
        DataError: a method that needs calibration data has none.
    """
    checkpoint = Checkpoint(Path(request.model.source.location))
    rules = request.capabilities.weights
    assert rules is not None
    rules = rules_of_model(rules, checkpoint)
    decoder = Decoder(checkpoint)
    planned = plan_weights(decoder.linear_layers(), request.recipe, rules)
    if accept is not None:
        accept(planned.plan)
    calibrated = method_of(request.recipe) in CALIBRATED
    if calibrated and request.calibration is None:
        raise missing_for_method(request.recipe.weight_method or "", text=True)
    opened = opened_store(work, checkpoint, request, planned.specs)
    with opened as store, _threads(request.threads):
        run = _Run(request, decoder, planned.specs, store, Settings(request.recipe, rules))
        if calibrated:
            run.calibrated()
        else:
            run.rounded()
    told = _told(store)
    notes = (*_notes(told), *smoothing_notes(told, method_of(request.recipe)))
    plan = with_smoothing(planned.plan, told)
    return Quantized(request.model, plan, notes=notes, weights=store)


@dataclass(frozen=True)
class _Run:
    """The way through all units; finished ones are skipped."""

    request: Request
    decoder: Decoder
    specs: dict[str, WeightSpec]
    store: WeightStore
    settings: Settings

    def rounded(self) -> None:
        """Every unit without data."""
        units = [OUTSIDE, *map(self.decoder.unit, range(self.decoder.depth)), HEAD]
        with self.request.progress.task("Rounding weights", len(units)) as advance:
            for unit in units:
                self._round_unit(unit)
                advance(1)

    def calibrated(self) -> None:
        """Every unit for what it reads of the calibration text."""
        depth = self.decoder.depth
        source = self.request.calibration
        assert source is not None
        batches = token_batches(source, self.request.recipe.calibration_samples)
        with self._inference():
            states = self._resumed(batches)
            with self.request.progress.task("Quantizing decoder layers", depth) as advance:
                advance(self._finished())
                for index in range(self._finished(), depth):
                    states = self._layer(index, batches, states)
                    advance(1)
            if not self.store.has(HEAD):
                self._head(batches, states)
            states.remove()

    def _resumed(self, batches: list[Ids]) -> HiddenStates:
        """What the first layer that is not finished reads; without it everything starts anew."""
        states = self._states(batches, self._finished())
        if self._finished() and self._to_be_read(self._finished()) and not states.complete:
            self.store.clear()
            states = self._states(batches, 0)
        # A run that was killed right behind a layer has left what that layer read.
        for stale in self.store.folder.glob("hidden-*"):
            if stale != states.path:
                stale.unlink()
        self._round_unit(OUTSIDE)
        if not self._finished():
            read, rows = self.store.float32, self._rows
            states.write(self.decoder.begin(ids, read, rows)[0].numpy() for ids in batches)
        return states

    def _states(self, batches: list[Ids], index: int) -> HiddenStates:
        shapes = tuple((len(ids), ids.shape[1]) for ids in batches)
        hidden = self.decoder.model.get_input_embeddings().weight.shape[1]
        return HiddenStates(self.store.folder / f"hidden-{index}.f32", shapes, hidden)

    def _finished(self) -> int:
        """The number of decoder layers that are finished."""
        depth = self.decoder.depth
        return next((i for i in range(depth) if not self.store.has(self.decoder.unit(i))), depth)

    def _to_be_read(self, index: int) -> bool:
        """Whether a layer or a head that is still to be quantized reads what ``index`` layers return."""
        quantized_head = self.decoder.head in self.specs and not self.store.has(HEAD)
        return index < self.decoder.depth or quantized_head

    def _layer(self, index: int, batches: list[Ids], states: HiddenStates) -> HiddenStates:
        unit = self.decoder.unit(index)
        calls = self.decoder.calls(index, batches, self.store.float32, self._rows)
        job = LayerJob(self.decoder, index, self.specs, self.settings, states, calls)
        results = self._states(batches, index + 1)
        with self.decoder.loaded(unit, self.store.checkpoint.float32):
            found = quantize_layer(job)
            if self._to_be_read(index + 1):
                results.write(job.outputs())
        self.store.write(unit, found.weights, found.rewritten, found.record)
        states.remove()
        return results

    def _head(self, batches: list[Ids], states: HiddenStates) -> None:
        name = self.decoder.head
        spec = self.specs.get(name or "")
        if name is None or spec is None:
            self._write(HEAD, {})
            return
        weight = self.store.checkpoint.float32(f"{name}.weight")
        statistics = self.settings.empty_statistics(weight.shape[1])
        for ids, hidden in zip(batches, states, strict=True):
            read = self._end(ids, hidden)
            statistics.update(read.reshape(-1, read.shape[-1]))
        found = quantize_calibrated(weight, spec, statistics, self.settings)
        found.record["outliers"] = outlier_ratio(statistics)
        self._write(HEAD, {name: found})

    def _end(self, ids: Ids, hidden: Array) -> Array:
        import torch

        found: Array = self.decoder.end(ids, torch.from_numpy(hidden), self.store.float32, self._rows).numpy()
        return found

    def _round_unit(self, unit: str) -> None:
        if self.store.has(unit):
            return
        stored = self.store.checkpoint
        self._write(
            unit,
            {
                name: round_stored(stored.read(f"{name}.weight"), spec, self.settings)
                for name, spec in self.specs.items()
                if self._unit_of(name) == unit
            },
        )

    def _unit_of(self, name: str) -> str:
        if name.startswith(f"{self.decoder.prefix}."):
            return self.decoder.unit(int(name[len(self.decoder.prefix) + 1 :].partition(".")[0]))
        return HEAD if name == self.decoder.head else OUTSIDE

    def _write(self, unit: str, results: dict[str, MethodResult]) -> None:
        weights = {name: result.weight for name, result in results.items()}
        records = {name: result.record for name, result in results.items()}
        self.store.write(unit, weights, {}, {"layers": records})

    def _rows(self, name: str, rows: Ids) -> Array:
        layer = name.removesuffix(".weight")
        if self.store.spec(layer) is None:
            return np.asarray(self.store.checkpoint.read(name)[rows], np.float32)
        return self.store.quantized(layer).rows(rows).dequantize()

    @contextmanager
    def _inference(self) -> Iterator[None]:
        import torch

        with torch.inference_mode():
            yield


@contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _told(store: WeightStore) -> dict[str, dict[str, Any]]:
    """What is known of each layer."""
    return {name: known for record in store.records.values() for name, known in record["layers"].items()}


def _notes(told: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What did not go as asked."""
    for name, known in told.items():
        if "fallback" in known:
            yield f"{name}: {known['fallback']}."
