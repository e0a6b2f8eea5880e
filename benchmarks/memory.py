"""Peak memory of loading and running, in a fresh process."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from edgeq.benchmarks.fresh_process import ProcessRun
from edgeq.benchmarks.measurement import Measurement
from edgeq.benchmarks.metric_info import resource


def peak_memory(runs: Sequence[ProcessRun], baseline: Sequence[ProcessRun] | None) -> list[Measurement]:
    """``peak_memory``: what loading and running add to the resident set of a process that has the runtime
    and the inputs already. ``peak_memory_process``: all of that process, Python included. Medians, bytes.
    """
    return [
        _measurement("peak_memory", [r.peak for r in runs], _peaks(baseline)),
        _measurement(
            "peak_memory_process",
            [r.peak_process for r in runs],
            None if baseline is None else [r.peak_process for r in baseline],
        ),
    ]


def _peaks(runs: Sequence[ProcessRun] | None) -> list[int] | None:
    return None if runs is None else [run.peak for run in runs]


def _measurement(name: str, values: list[int], reference: list[int] | None) -> Measurement:
    detail = {"processes": len(values), "runs": values}
    base = None if reference is None else float(median(reference))
    return resource(name, float(median(values)), base, detail=detail)
