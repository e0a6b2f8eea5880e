"""Quantizes one decoder layer for what its linear layers read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from edgeq.compiler.weights.collecting import Readers, collect, shared_inputs, stages
from edgeq.compiler.weights.decoder import Decoder, LayerCall
from edgeq.compiler.weights.hidden import HiddenStates
from edgeq.compiler.weights.methods import Settings, quantize_calibrated
from edgeq.compiler.weights.spec import Floats, QuantizedWeight, WeightSpec
from edgeq.compiler.weights.statistics import InputStatistics

# Hessians of experts that are collected together.
HESSIAN_BYTES = 1 << 31


@dataclass(frozen=True)
class LayerJob:
    """A decoder layer that is loaded, and what it is called with; ``calls`` by the batch's shape."""

    decoder: Decoder
    index: int
    specs: dict[str, WeightSpec]
    settings: Settings
    states: HiddenStates
    calls: dict[tuple[int, int], LayerCall]

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

    def passes(self) -> Iterator[Callable[[], Any]]:
        """The layer on one batch after the other."""
        import torch

        for hidden in self.states:
            call = self.calls[(hidden.shape[0], hidden.shape[1])]
            yield lambda h=hidden, c=call: self.decoder.run(self.index, torch.from_numpy(h), c)

    def outputs(self) -> Iterator[Floats]:
        """What the layer, as it is now, returns for every batch."""
        for run in self.passes():
            yield run().numpy()


@dataclass
class LayerResult:
    """The quantized weights of a decoder layer, tensors that were changed, and what is to be told."""

    weights: dict[str, QuantizedWeight] = field(default_factory=dict)
    rewritten: dict[str, Floats] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=lambda: {"layers": {}})


def quantize_layer(job: LayerJob) -> LayerResult:
    """Quantize the layer's weights one input after the other; the module has the rounded values then."""
    linears = job.linears()
    sizes = {name: job.module.get_submodule(name).in_features for name in linears}
    groups = shared_inputs(job.module, list(linears), next(job.passes()))
    result = LayerResult()
    for stage in stages(groups, sizes, HESSIAN_BYTES):
        found = collect(job.module, stage, sizes, job.passes, hessian=True)
        for readers in stage:
            _quantize_readers(job, readers, found.pop(readers), result)
    return result


def _quantize_readers(
    job: LayerJob, readers: Readers, statistics: InputStatistics, result: LayerResult
) -> None:
    import torch

    for name in readers:
        module, full = job.module.get_submodule(name), f"{job.unit}.{name}"
        done = quantize_calibrated(module.weight.numpy(), job.specs[full], statistics, job.settings)
        module.weight.copy_(torch.from_numpy(done.weight.dequantize()))
        result.weights[full] = done.weight
        result.record["layers"][full] = done.record
