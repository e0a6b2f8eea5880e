"""Rows of text for the tables of the CLI, the report and the job summary: one wording everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeq.benchmarks.measurement import Measurement
from edgeq.benchmarks.metric_info import RESOURCES
from edgeq.benchmarks.units import format_difference, format_value

NOTHING = "-"


@dataclass(frozen=True)
class MetricRow:
    """One metric as people read it; ``better`` None where nothing can be said or nothing changed."""

    metric: str
    baseline: str
    value: str
    change: str
    interval: str
    remark: str
    better: bool | None


def metric_rows(measurements: Mapping[str, Measurement]) -> list[MetricRow]:
    """All measurements in the order in which they were made."""
    return [_row(measurement) for measurement in measurements.values()]


def _row(found: Measurement) -> MetricRow:
    baseline = NOTHING if found.baseline is None else format_value(found.baseline, found.unit)
    return MetricRow(
        found.metric,
        baseline,
        format_value(found.value, found.unit),
        _change(found),
        interval_text(found),
        _remark(found),
        _better(found),
    )


def _change(found: Measurement) -> str:
    """Costs change by percent, qualities by a difference."""
    if found.difference is None:
        return NOTHING
    if found.metric not in RESOURCES:
        return format_difference(found.difference, found.unit)
    return NOTHING if found.ratio is None else f"{100 * (found.ratio - 1):+.1f} %"


def _better(found: Measurement) -> bool | None:
    if not found.difference:
        return None
    return (found.difference > 0) == found.higher_is_better


def interval_text(found: Measurement) -> str:
    """``-1.20 to +0.31 points`` of a difference, ``12.1 ms to 12.6 ms`` of a value, else a dash."""
    if found.interval is None:
        return NOTHING
    low, high = found.interval
    if found.interval_of == "value":
        return f"{format_value(low, found.unit)} to {format_value(high, found.unit)}"
    high_text = format_difference(high, found.unit)
    return f"{format_difference(low, found.unit).removesuffix(' points')} to {high_text}"


def _remark(found: Measurement) -> str:
    """What else was seen: flips, samples, a warning."""
    detail, parts = found.detail, []
    if "samples" in detail:
        parts.append(f"{detail['samples']} samples")
    flips = detail.get("flips")
    if flips is not None:
        parts.append(f"{flips['changed']} flips ({flips['lost']} lost, {flips['gained']} gained)")
    if "iterations" in detail:
        parts.append(f"{detail['iterations']} inferences, {detail['threads']} thread(s)")
    if "processes" in detail:
        parts.append(f"{detail['processes']} fresh processes")
    if "note" in detail:
        parts.append(detail["note"])
    return ", ".join(parts)
