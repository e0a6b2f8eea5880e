"""Latency: one inference after the other, the artefact and the FP32 baseline taking turns.

A machine is never equally fast for long. So the models run in alternating blocks (A B, B A, A B, …) in
one process with the same inputs and number of threads, and whatever slows the machine hits all.
Medians and percentiles are over all timed inferences; intervals come from resampling pairs of blocks.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

import numpy as np

from edgeq.benchmarks.feeding import Feeds
from edgeq.benchmarks.intervals import Statistic, Times, block_bootstrap, first, median_ratio
from edgeq.benchmarks.measurement import Measurement
from edgeq.benchmarks.metric_info import resource
from edgeq.benchmarks.options import BenchOptions
from edgeq.machine import usable_cores
from edgeq.progress import Progress
from edgeq.targets.base import Runner

_PERCENTILES = {"latency_p50": 50.0, "latency_p90": 90.0, "latency_p95": 95.0, "latency_p99": 99.0}
_HISTOGRAM_BINS = 40
# So many pairs of blocks make a bootstrap interval that can be trusted; only the options' caps allow fewer.
_BLOCKS_WANTED = 12
# The first inference after a turn finds cold caches and the other's threads still spinning: it is not timed,
# unless inferences take so many seconds that neither matters.
_SETTLE_BELOW = 0.1


@dataclass(frozen=True)
class Timing:
    """Seconds per inference, [blocks, inferences per block]; ``baseline`` None when it ran alone."""

    artefact: Times
    baseline: Times | None


def latency_measurements(
    timing: Timing, feeds: Feeds, *, threads: int | None, seed: int
) -> list[Measurement]:
    """Percentiles and mean of the time of one inference, and the speedup over the baseline."""
    detail = {
        "threads": threads or usable_cores(),
        "batch": feeds.batch,
        "inputs": feeds.origin,
        "iterations": int(timing.artefact.size),
        "blocks": len(timing.artefact),
    }
    return _measurements(timing, detail, seed)


def time_in_turns(
    runners: Sequence[Runner], feeds: Feeds, options: BenchOptions, progress: Progress
) -> list[Times]:
    """Seconds per inference of every runner, [blocks, inferences per block]; block i of all is one turn.

    They run in alternating blocks until the options' time and iterations are reached.

    Raises:
        TargetError: one of them cannot be run.
    """
    with collector_off(), progress.task("Timing", 100) as advance:
        slowest = max(_warm_up(runner, feeds, options) for runner in runners)
        most = max(options.max_iterations // _BLOCKS_WANTED, 1)
        size = int(min(max(options.block_seconds / slowest, 1), most))
        blocks: list[list[Times]] = [[] for _ in runners]
        reported = 0
        while True:
            _one_turn(runners, feeds, size, blocks, settle=slowest < _SETTLE_BELOW)
            done = _share_done(blocks, size, options)
            advance(min(int(100 * done), 100) - reported)
            reported = min(int(100 * done), 100)
            if done >= 1:
                break
    return [np.stack(of_runner) for of_runner in blocks]


def _one_turn(
    runners: Sequence[Runner], feeds: Feeds, size: int, blocks: list[list[Times]], *, settle: bool
) -> None:
    """One block of every runner; the order changes every turn, so that neither is always the second."""
    turn = len(blocks[0])
    order = range(len(runners)) if turn % 2 == 0 else reversed(range(len(runners)))
    for which in order:
        if settle:
            runners[which].run(feeds.inputs[turn * size % len(feeds.inputs)])
        blocks[which].append(_time_block(runners[which], feeds, start=turn * size, size=size))


def _time_block(runner: Runner, feeds: Feeds, start: int, size: int) -> Times:
    inputs = feeds.inputs
    times = np.empty(size)
    for i in range(size):
        feed = inputs[(start + i) % len(inputs)]
        begin = perf_counter_ns()
        runner.run(feed)
        times[i] = perf_counter_ns() - begin
    return times / 1e9


def _warm_up(runner: Runner, feeds: Feeds, options: BenchOptions) -> float:
    """Run until the warm-up time is over (every input at least once); the median seconds of the last runs."""
    times: list[float] = []
    while len(times) < max(3, len(feeds.inputs)) or sum(times) < options.warmup_seconds:
        times.append(float(_time_block(runner, feeds, start=len(times), size=1)[0]))
        if sum(times) > options.max_seconds:
            break
    return max(float(np.median(times[len(times) // 2 :])), 1e-7)


def _share_done(blocks: list[list[Times]], size: int, options: BenchOptions) -> float:
    """1 and more when the timing may end."""
    seconds = [float(sum(block.sum() for block in of_runner)) for of_runner in blocks]
    iterations = len(blocks[0]) * size
    cap = max(max(seconds) / options.max_seconds, iterations / options.max_iterations)
    enough = min(iterations / options.min_iterations, len(blocks[0]) / _BLOCKS_WANTED)
    if options.min_seconds > 0:
        # The faster of the models decides: both have then run for long enough.
        enough = min(enough, min(seconds) / options.min_seconds)
    return max(enough, cap)


@contextmanager
def collector_off() -> Iterator[None]:
    """Python's garbage collector does not run inside of timed inferences."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _measurements(timing: Timing, detail: dict[str, Any], seed: int) -> list[Measurement]:
    ours = timing.artefact
    theirs = ours if timing.baseline is None else timing.baseline
    statistics: dict[str, Statistic] = {name: first(percent) for name, percent in _PERCENTILES.items()}
    statistics["latency_mean"] = lambda a, _b: float(np.mean(a))
    if timing.baseline is not None:
        statistics["speedup"] = median_ratio
    estimates = block_bootstrap(ours, theirs, statistics, seed=seed)
    references = _references(timing.baseline)
    return [
        resource(
            name,
            estimate.value,
            references.get(name),
            interval=estimate.interval,
            detail=_with_notes(name, timing, detail),
        )
        for name, estimate in estimates.items()
    ]


def _references(baseline: Times | None) -> dict[str, float]:
    if baseline is None:
        return {}
    percentiles = {name: float(np.percentile(baseline, percent)) for name, percent in _PERCENTILES.items()}
    return {**percentiles, "latency_mean": float(np.mean(baseline))}


def _with_notes(name: str, timing: Timing, detail: dict[str, Any]) -> dict[str, Any]:
    if name == "latency_p50":
        return {**detail, "histogram": _histogram(timing)}
    slowest = timing.artefact.size * (1 - _PERCENTILES.get(name, 0) / 100)
    if name in _PERCENTILES and slowest < 1:
        return {**detail, "note": f"{timing.artefact.size} inferences are few for {name}: it is the slowest"}
    return dict(detail)


def _histogram(timing: Timing) -> dict[str, Any]:
    """Counts over logarithmic bins from the fastest to the 99.5th percentile, for the report's picture."""
    series = {"artefact": timing.artefact}
    if timing.baseline is not None:
        series["baseline"] = timing.baseline
    low = min(float(times.min()) for times in series.values())
    high = max(float(np.percentile(times, 99.5)) for times in series.values())
    edges = np.geomspace(low, max(high, low * 1.01), _HISTOGRAM_BINS + 1)
    counts = {name: np.histogram(times, edges)[0].tolist() for name, times in series.items()}
    return {"edges": [float(f"{edge:.4g}") for edge in edges], **counts}
