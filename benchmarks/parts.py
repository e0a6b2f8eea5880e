"""Which part of the harness measures a metric, and why a part has measured nothing."""

from __future__ import annotations

from collections.abc import Collection

from edgeq.benchmarks.metric_info import DEVICE, GENERATION, RESOURCES
from edgeq.benchmarks.options import Part
from edgeq.benchmarks.tasks.names import is_task_metric

_PARTS: dict[str, Part] = {
    "size": "size",
    "load_time": "load",
    "peak_memory": "memory",
    "peak_memory_process": "memory",
    "ane_share": "placement",
    "gpu_share": "placement",
    "cpu_share": "placement",
    **dict.fromkeys(GENERATION, "generation"),
}


def part_of(metric: str) -> Part:
    """Which part of the harness measures a metric."""
    if metric not in RESOURCES:
        return "accuracy"
    return _PARTS.get(metric, "latency")


def names_of(*parts: Part) -> list[str]:
    """The costs that these parts measure."""
    return [name for name in RESOURCES if part_of(name) in parts]


def why_missing(metric: str, target: str, asked: Collection[str]) -> str:
    """Why a metric that was named has no value, where measuring has not said more."""
    part = part_of(metric)
    if is_task_metric(metric) and part in asked:
        return "no task that was run has such a result"
    if part not in asked:
        return f"measuring {part} was switched off"
    if part == "placement":
        return f"target {target} does not say where operations run"
    if part == "generation":
        return f"target {target} has no runner here that writes text"
    if metric in DEVICE:
        return f"target {target} has no device with such a clock here"
    if part == "accuracy":
        return "no evaluation data was given"
    return "there is no FP32 baseline to compare with"
