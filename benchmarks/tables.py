"""Rows of text for the tables of the CLI, the report and the job summary: one wording everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeq.benchmarks.measurement import Measurement
from edgeq.benchmarks.metric_info import RESOURCES
from edgeq.benchmarks.units import difference_number, format_difference, format_value

NOTHING = "-"


@dataclass(frozen=True)
class MetricRow:
    """One metric as people read it.

    ``better`` is None where nothing changed or the change is within its 95 % interval.
    """

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
    """Costs change by a factor, qualities by a difference."""
    if found.difference is None:
        return NOTHING
    if found.metric not in RESOURCES:
        return format_difference(found.difference, found.unit)
    return NOTHING if found.ratio is None else f"x {found.ratio:.2f}"


def _better(found: Measurement) -> bool | None:
    if not found.difference:
        return None
    if found.interval is not None:
        low, high = found.interval
        unchanged = 0.0 if found.interval_of == "difference" else found.baseline
        if unchanged is not None and low <= unchanged <= high:
            return None
    return (found.difference > 0) == found.higher_is_better


def interval_text(found: Measurement) -> str:
    """``-1.20 to +0.31 points`` of a difference, ``12.1 ms to 12.6 ms`` of a value, else a dash."""
    if found.interval is None:
        return NOTHING
    low, high = found.interval
    if found.interval_of == "value":
        return f"{format_value(low, found.unit)} to {format_value(high, found.unit)}"
    return f"{difference_number(low, found.unit)} to {format_difference(high, found.unit)}"


def _remark(found: Measurement) -> str:
    """What else was seen: flips, samples, a warning."""
    detail, parts = found.detail, []
    if "samples" in detail:
        parts.append(f"{detail['samples']} sample{_s(detail['samples'])}")
    flips = detail.get("flips")
    if flips is not None:
        parts.append(
            f"{flips['changed']} flip{_s(flips['changed'])} ({flips['lost']} lost, {flips['gained']} gained)"
        )
    if "iterations" in detail:
        parts.append(f"{detail['iterations']} inferences, {detail['threads']} thread{_s(detail['threads'])}")
    if "rounds" in detail:
        parts.append(
            f"{detail['rounds']} texts: {detail['prompt_tokens']} tokens {detail['prompt']} read, "
            f"{detail['new_tokens']} written, {detail['threads']} thread{_s(detail['threads'])}"
        )
    if "processes" in detail:
        parts.append(f"{detail['processes']} fresh process{'es' if detail['processes'] > 1 else ''}")
    if "note" in detail:
        parts.append(detail["note"])
    return ", ".join(parts)


def _s(count: int) -> str:
    return "" if count == 1 else "s"
