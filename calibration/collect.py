"""The collecting run: one pass over the calibration data, one sketch per tensor."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeq.calibration.instrument import open_session, plan_fetches, read_graph
from edgeq.calibration.network import Network, filled_up
from edgeq.calibration.sketch import Sketch, merge_all
from edgeq.calibration.tally import Observer, Tally
from edgeq.calibration.types import Batch, DataSource
from edgeq.errors import DataError, UsageError
from edgeq.progress import Progress, SilentProgress

__all__ = ["Observer", "Statistics", "collect"]


@dataclass(frozen=True)
class Statistics:
    """One sketch per asked tensor, and the number of samples they have seen."""

    sketches: dict[str, Sketch]
    samples: int


def collect(
    model: bytes | Path,
    tensors: Sequence[str],
    source: DataSource,
    *,
    samples: int,
    batch_size: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    observers: Sequence[Observer] = (),
    non_finite: Literal["error", "count"] = "error",
) -> Statistics:
    """Run the model over the data once and sketch the values of ``tensors``.

    Memory does not grow with the number of samples: two batches of the tensors are held, one in inference and
    one being counted in another thread.

    Args:
        model: ONNX bytes, or the path of an ONNX file (with external data, if it has any).
        tensors: names of tensors in the main graph: inputs, outputs, or anything between.
        source: the calibration data.
        samples: how many of its samples are used at most.
        batch_size: None: the model's own, if that is fixed, else 1 to 32, so that a batch fits in 32 MiB.
        threads: of ONNX Runtime; None: its default.
        progress: told about every batch.
        observers: further collectors that share the pass.
        non_finite: ``error`` refuses NaN and infinite values, ``count`` only counts them in the sketches.

    Raises:
        DataError: no data, data that the model cannot take, or NaN or infinite activations.
        ModelError: the model cannot be loaded, or has no such tensor.
        UsageError: ``samples`` or ``batch_size`` under 1.
    """
    if samples < 1 or (batch_size is not None and batch_size < 1):
        raise UsageError("The number of samples and the batch size must be at least 1.")
    graph = read_graph(model)
    fetches = plan_fetches(graph, tensors, {name for o in observers for name in o.tensors})
    network = Network(open_session(model, graph, fetches.from_session, threads), fetches)
    size = batch_size or network.fixed_batch or network.fitting_batch(_first_sample(source))
    tally = Tally(fetches.sketched, observers, refuse_non_finite=non_finite == "error")
    seen = _one_pass(network, source, samples, size, tally, progress or SilentProgress())
    sketches = {name: merge_all(tally.sketches[p] for p in held) for name, held in fetches.parts.items()}
    return Statistics(sketches, seen)


def _first_sample(source: DataSource) -> Batch:
    for batch in source.batches(1, 1):
        return batch
    raise DataError("The calibration data is empty.", fix="Give at least one sample.")


def _one_pass(
    network: Network, source: DataSource, samples: int, size: int, tally: Tally, progress: Progress
) -> int:
    """Feed all batches to ``tally``, in a thread beside the inference of the next batch."""
    expected = samples if source.size is None else min(samples, source.size)
    seen = 0
    counting: Future[None] | None = None
    with progress.task("Calibrating", expected) as advance, ThreadPoolExecutor(max_workers=1) as worker:
        for batch in source.batches(size, samples):
            arrays = network.run(_fitted(network, batch), seen)
            if counting is not None:
                counting.result()
            counting = worker.submit(tally.take, arrays, seen, batch.size, -(-expected // size))
            seen += batch.size
            advance(batch.size)
        if counting is None:
            raise DataError("The calibration data is empty.", fix="Give at least one sample.")
        counting.result()
    return seen


def _fitted(network: Network, batch: Batch) -> Batch:
    """The batch, filled up if the model takes only full ones (the last may be short)."""
    fixed = network.fixed_batch
    return filled_up(batch, fixed) if fixed is not None and batch.size < fixed else batch
