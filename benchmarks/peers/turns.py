"""Latencies in turns, so that whatever slows the machine hits all that is compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np


def median_ms(calls: Sequence[Callable[[], object]], rounds: int, warm_up: int = 5) -> list[float]:
    """The median milliseconds of each call over ``rounds`` turns, after ``warm_up`` ones."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(warm_up + rounds):
        for taken, call in zip(times, calls, strict=True):
            start = time.perf_counter()
            call()
            if turn >= warm_up:
                taken.append(time.perf_counter() - start)
    return [1000 * float(np.median(taken)) for taken in times]
