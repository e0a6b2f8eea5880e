"""The collecting run: one pass over the calibration data, one sketch per tensor."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeq.calibration.instrument import Fetches, open_session, plan_fetches, read_graph
from edgeq.calibration.kernels import Kernel, choose_kernel
from edgeq.calibration.network import Network, filled_up
from edgeq.calibration.sketch import Sketch, merge_all
from edgeq.calibration.tally import Observer, Tally
from edgeq.calibration.types import Array, Batch, DataSource
from edgeq.errors import DataError, UsageError
from edgeq.progress import Progress, SilentProgress

__all__ = ["Observer", "Statistics", "collect"]

# Small batches stay in the cache between inference and counting. One sample may be larger than that.
_BATCH_BYTES = 8 << 20
_LARGEST_BATCH = 32
# Batches in work at the same time: as many threads as that each run one, as far as memory allows.
_MOST_WORKERS = 4
_WORKERS_BYTES = 128 << 20


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
    """Run the model over the data and sketch the values of ``tensors``.

    Memory does not grow with the number of samples. Several batches are in work at the same time, each in one
    thread that runs and then counts it. The result does not depend on their order.

    Args:
        model: ONNX bytes, or the path of an ONNX file (with external data, if it has any).
        tensors: names of tensors in the main graph: inputs, outputs, or anything between.
        source: the calibration data.
        samples: how many of its samples are used at most.
        batch_size: None: the model's own, if that is fixed; 1, if other sizes are free too (samples would be
            padded, and the padding counted); else 1 to 32, as fit in 8 MiB of tensors.
        threads: in all; None: one per core.
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
    fetches = plan_fetches(read_graph(model), tensors, {name for o in observers for name in o.tensors})
    tally = Tally(fetches.sketched, observers, refuse_non_finite=non_finite == "error")
    way = _prepare(model, fetches, source, tally, samples, batch_size, threads or _cores())
    seen = _one_pass(way, source, tally, samples, progress or SilentProgress())
    sketches = {name: merge_all([tally.sketches[p] for p in held]) for name, held in fetches.parts.items()}
    return Statistics(sketches, seen)


@dataclass(frozen=True)
class _Way:
    """How the pass is made: with which session, batches and threads."""

    network: Network
    tensors: tuple[str, ...]
    batch_size: int
    workers: int
    kernel: Kernel

    def run(self, batch: Batch, first: int) -> dict[str, Array]:
        fixed = self.network.fixed_batch
        if fixed is not None and batch.size < fixed:
            batch = filled_up(batch, fixed)
        return self.network.run(batch, self.tensors, first)


def _prepare(
    model: bytes | Path,
    fetches: Fetches,
    source: DataSource,
    tally: Tally,
    samples: int,
    batch_size: int | None,
    threads: int,
) -> _Way:
    """Measure one batch to find the way, and take from it what is the same for all batches."""
    most = min(threads, _MOST_WORKERS)
    network = Network(open_session(model, fetches, threads - most + 1))
    given = batch_size or network.fixed_batch or (1 if network.free_sizes else None)
    batch = _first_batch(source, given or 1)
    arrays = _Way(network, fetches.fetched, batch.size, 1, choose_kernel(0)).run(batch, 0)
    constant = {name: arrays.pop(name) for name in fetches.once}
    tally.count(constant, 0, batch.size, choose_kernel(0))
    tally.observe(constant)

    nbytes = max(1, sum(array.nbytes for array in arrays.values()))
    size = given or max(1, min(_LARGEST_BATCH, _BATCH_BYTES // nbytes))
    workers = max(1, min(most, _WORKERS_BYTES * batch.size // (nbytes * size)))
    if workers < most:
        network = Network(open_session(model, fetches, threads - workers + 1))
    values = sum(array.size for array in arrays.values()) * _expected(source, samples) // batch.size
    return _Way(network, tuple(arrays), size, workers, choose_kernel(values))


def _one_pass(way: _Way, source: DataSource, tally: Tally, samples: int, progress: Progress) -> int:
    """Run and count all batches; returns the number of samples."""

    def work(batch: Batch, first: int) -> dict[str, Array]:
        arrays = way.run(batch, first)
        tally.count(arrays, first, batch.size, way.kernel)
        return arrays if tally.has_observers else {}

    seen = 0
    waiting: deque[tuple[Future[dict[str, Array]], int]] = deque()
    pool = ThreadPoolExecutor(way.workers, thread_name_prefix="calibrate")
    try:
        with progress.task("Calibrating", _expected(source, samples)) as advance:

            def finish_one() -> None:
                future, size = waiting.popleft()
                tally.observe(future.result())
                advance(size)

            for batch in source.batches(way.batch_size, samples):
                waiting.append((pool.submit(work, batch, seen), batch.size))
                seen += batch.size
                if len(waiting) > way.workers:
                    finish_one()
            while waiting:
                finish_one()
    finally:
        pool.shutdown(cancel_futures=True)
    return seen


def _first_batch(source: DataSource, size: int) -> Batch:
    for batch in source.batches(size, size):
        return batch
    raise DataError("The calibration data is empty.", fix="Give at least one sample.")


def _expected(source: DataSource, samples: int) -> int:
    return samples if source.size is None else min(samples, source.size)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
