"""Times of several engines on one GPU, taking turns, by the GPU's own clock."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgeq.benchmarks.intervals import Times
from edgeq.benchmarks.options import BenchOptions
from edgeq.calibration.types import Arrays
from edgeq.progress import Progress
from edgeq.targets.tensorrt.gpu.runner import Timed

# Pairs of blocks that make a bootstrap interval; see benchmarks/latency.py.
BLOCKS = 12


class Timer(Protocol):
    """What can run once and say how long that took."""

    def timed(self, inputs: Arrays) -> Timed: ...


@dataclass(frozen=True)
class Series:
    """Seconds [blocks, inferences per block]: on the GPU alone, and with the copies to it and back."""

    device: Times
    total: Times


def time_engines(
    timers: Mapping[str, Timer], feeds: Sequence[Arrays], options: BenchOptions, progress: Progress
) -> dict[str, Series]:
    """Run all of ``timers`` in alternating blocks, the order changing every round.

    A GPU's clock follows its heat and load for seconds, so that engines timed one after the other cannot be
    compared. Each block starts with a run that is not counted.

    Raises:
        TargetError: an engine fails.
    """
    slowest = max(_warm_up(timer, feeds, options) for timer in timers.values())
    size = block_size(slowest, options)
    found: dict[str, list[list[Timed]]] = {name: [] for name in timers}
    with progress.task("Timing on the GPU", BLOCKS) as advance:
        for turn in range(BLOCKS):
            names = list(timers) if turn % 2 == 0 else list(timers)[::-1]
            for name in names:
                found[name].append(_block(timers[name], feeds, turn * size, size))
            advance(1)
    return {name: _series(blocks) for name, blocks in found.items()}


def block_size(slowest: float, options: BenchOptions) -> int:
    """Inferences per block, so that all blocks keep the options' seconds and iterations."""
    enough = max(options.min_iterations, options.min_seconds / slowest)
    most = min(options.max_iterations, options.max_seconds / slowest)
    return max(math.ceil(min(enough, most) / BLOCKS), 1)


def _warm_up(timer: Timer, feeds: Sequence[Arrays], options: BenchOptions) -> float:
    """Run until the warm-up time is over, every input twice at least; the median seconds of the last runs."""
    times: list[float] = []
    while len(times) < max(3, 2 * len(feeds)) or sum(times) < options.warmup_seconds:
        times.append(timer.timed(feeds[len(times) % len(feeds)]).total)
        if sum(times) > options.max_seconds:
            break
    return max(float(np.median(times[len(times) // 2 :])), 1e-7)


def _block(timer: Timer, feeds: Sequence[Arrays], start: int, size: int) -> list[Timed]:
    timer.timed(feeds[start % len(feeds)])
    return [timer.timed(feeds[(start + i) % len(feeds)]) for i in range(size)]


def _series(blocks: Sequence[Sequence[Timed]]) -> Series:
    return Series(
        np.array([[timed.device for timed in block] for block in blocks]),
        np.array([[timed.total for timed in block] for block in blocks]),
    )
