"""Load time: from the file to a model that can run, in a fresh process."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from edgeq.benchmarks.fresh_process import ProcessRun
from edgeq.benchmarks.measurement import Measurement
from edgeq.benchmarks.metric_info import resource


def load_time(runs: Sequence[ProcessRun], baseline: Sequence[ProcessRun] | None) -> Measurement:
    """Seconds, median over processes that have imported the runtime; the file is in the page cache."""
    detail = {
        "processes": len(runs),
        "runs": [round(run.load, 6) for run in runs],
        "first_inference": round(median(run.first_run for run in runs), 6),
    }
    reference = None if baseline is None else median(run.load for run in baseline)
    value = median(run.load for run in runs)
    return resource("load_time", value, reference, detail=detail)
