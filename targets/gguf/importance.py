"""How much each input channel matters: the mean of its squares over a text (llama.cpp's imatrix).

Decoder layers of the float model run one after the other, so one of them is in memory at a time.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Array, DataSource
from edgeq.compiler.load.checkpoint import Checkpoint
from edgeq.compiler.weights.collecting import collect, shared_inputs
from edgeq.compiler.weights.decoder import Decoder, Ids
from edgeq.compiler.weights.hidden import HiddenStates, token_batches
from edgeq.compiler.weights.spec import Floats
from edgeq.compiler.weights.statistics import InputStatistics
from edgeq.progress import Progress

# Layer → float32 [inputs].
Importance = dict[str, Floats]


def collect_importance(
    checkpoint: Checkpoint, source: DataSource, windows: int, progress: Progress
) -> Importance:
    """The mean square of every input channel of every linear layer over ``windows`` samples of ``source``.

    Raises:
        DataError: the data has no sample.
        TargetError: the model cannot be run layer by layer.
    """
    import torch

    decoder = Decoder(checkpoint)
    batches = token_batches(source, windows)
    with torch.inference_mode(), tempfile.TemporaryDirectory(prefix="edgeq-imatrix-") as scratch:
        walk = _Walk(decoder, batches, Path(scratch))
        found: Importance = {}
        with progress.task("Collecting the importance matrix", decoder.depth) as advance:
            states = walk.first()
            for index in range(decoder.depth):
                states = walk.through(index, states, found)
                advance(1)
        found.update(walk.head(states))
    return found


@dataclass(frozen=True)
class _Walk:
    decoder: Decoder
    batches: list[Ids]
    scratch: Path

    def first(self) -> HiddenStates:
        """What the first decoder layer reads."""
        shapes = tuple((len(ids), ids.shape[1]) for ids in self.batches)
        width = int(self.decoder.model.get_input_embeddings().weight.shape[1])
        states = HiddenStates(self.scratch / "hidden-0.f32", shapes, width)
        begin = self.decoder.begin
        states.write(begin(ids, self._read, self._rows)[0].numpy() for ids in self.batches)
        return states

    def through(self, index: int, states: HiddenStates, found: Importance) -> HiddenStates:
        """Look at decoder layer ``index``; what it returns is what the next one reads."""
        calls = self.decoder.calls(index, self.batches, self._read, self._rows)
        results = HiddenStates(self.scratch / f"hidden-{index + 1}.f32", states.shapes, states.width)
        unit = self.decoder.unit(index)

        passes = partial(self.decoder.passes, index, states, calls)
        with self.decoder.loaded(unit, self.decoder.checkpoint.float32) as module:
            sizes = _inputs(module)
            groups = shared_inputs(module, list(sizes), next(passes()))
            statistics = collect(module, groups, sizes, passes, partial(InputStatistics.empty, hessian=False))
            results.write(run().numpy() for run in passes())
        for readers, seen in statistics.items():
            found.update({f"{unit}.{name}": _mean(seen) for name in readers})
        states.path.unlink()
        return results

    def head(self, states: HiddenStates) -> Importance:
        """The output layer; a tied one multiplies by the table of embeddings."""
        import torch

        name = self.decoder.head or self.decoder.embedding
        seen = InputStatistics.empty(states.width, hessian=False)
        for ids, hidden in zip(self.batches, states, strict=True):
            read = self.decoder.end(ids, torch.from_numpy(hidden), self._read, self._rows)
            seen.update(read.reshape(-1, states.width).numpy())
        return {name: _mean(seen)}

    def _read(self, name: str) -> Array:
        return self.decoder.checkpoint.float32(name)

    def _rows(self, name: str, rows: Ids) -> Array:
        return np.asarray(self.decoder.checkpoint.read(name)[rows], np.float32)


def _inputs(module: Any) -> dict[str, int]:
    import torch

    return {
        name: part.in_features for name, part in module.named_modules() if isinstance(part, torch.nn.Linear)
    }


def _mean(seen: InputStatistics) -> Floats:
    return np.asarray(seen.squares / max(seen.tokens, 1), np.float32)
