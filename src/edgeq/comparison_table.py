"""A comparison as a table of texts: one wording for the terminal, HTML and Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgeq.benchmarks.measurement import Measurement, Measurements
from edgeq.benchmarks.metric_info import RESOURCES
from edgeq.benchmarks.units import format_difference, format_value
from edgeq.candidates import QUANTIZER
from edgeq.comparison import Comparison, Row

TARGET, STATE = "target", "budgets"


@dataclass(frozen=True)
class Column:
    """One property of all artefacts: ``baseline`` is FP32's, ``cells`` are the rows' in order."""

    title: str
    baseline: str
    cells: tuple[str, ...]


def columns(comparison: Comparison) -> list[Column]:
    """Every column in which anything stands; a row without an artefact has empty cells."""
    rows = comparison.rows
    found = [Column(QUANTIZER, "", tuple(row.quantizer if row.result is not None else "" for row in rows))]
    found += [_measured(rows, metric, title) for metric, title in _costs(comparison)]
    found += [column for metric in _qualities(rows) for column in _quality(rows, metric)]
    found.append(Column("quantized nodes", "", tuple(map(_nodes, rows))))
    found.append(Column("compile time", "", tuple(_compiling(row, "seconds", "s") for row in rows)))
    found.append(Column("compile memory", "", tuple(_compiling(row, "peak_memory", "bytes") for row in rows)))
    return [column for column in found if column.baseline or any(column.cells)]


def state(row: Row) -> str:
    """How many budgets a row keeps, or that there is nothing to keep them."""
    if row.error is not None:
        return "refused" if row.refused else "failed" if row.result is None else "not measured"
    verdicts = [] if row.result is None else row.result.verdicts
    if not verdicts:
        return "none"
    return f"{sum(verdict.passed for verdict in verdicts)} of {len(verdicts)} kept"


def _costs(comparison: Comparison) -> list[tuple[str, str]]:
    cores = comparison.threads
    threads = f"{cores} thread{'' if cores == 1 else 's'}"
    return [
        ("size", "size"),
        ("latency_p50", f"p50, {threads}"),
        ("latency_p90", f"p90, {threads}"),
        ("speedup", f"speedup, {threads}"),
        (_ONE + "latency_p50", "p50, 1 thread"),
        (_ONE + "speedup", "speedup, 1 thread"),
        ("load_time", "load time"),
        ("peak_memory", "peak memory"),
    ]


# A metric that was timed at one thread, beside the one at more.
_ONE = "1:"


def _found(row: Row, metric: str) -> Measurement | None:
    if metric.startswith(_ONE):
        return row.one_thread.get(metric.removeprefix(_ONE))
    return None if row.result is None else row.result.measurements.get(metric)


def _measured(rows: tuple[Row, ...], metric: str, title: str) -> Column:
    found = [_found(row, metric) for row in rows]
    base = next(
        (_text(one.baseline, one) for one in found if one is not None and one.baseline is not None), ""
    )
    return Column(title, base, tuple("" if one is None else _text(one.value, one) for one in found))


def _text(value: float, measured: Measurement) -> str:
    return format_value(value, measured.unit)


def _qualities(rows: tuple[Row, ...]) -> Iterator[str]:
    """The metrics that budgets name; without any, the first that was measured."""
    measured = [row.result.measurements for row in rows if row.result is not None]
    names = list(dict.fromkeys(name for found in measured for name in found if name not in RESOURCES))
    judged = [v.metric for row in rows if row.result is not None for v in row.result.verdicts]
    chosen = [name for name in names if name in judged] or names[:1]
    yield from chosen


def _quality(rows: tuple[Row, ...], metric: str) -> Iterator[Column]:
    """The metric, and its difference to FP32 where there is one."""
    yield _measured(rows, metric, metric)
    changes = [_found(row, metric) for row in rows]
    yield Column(f"{metric} - FP32", "", tuple(map(_change, changes)))


def _change(found: Measurement | None) -> str:
    if found is None or found.difference is None:
        return ""
    return format_difference(found.difference, found.unit).removesuffix(" points")


def _nodes(row: Row) -> str:
    return f"{row.ran} of {row.planned}" if row.result is not None and row.planned else ""


def _compiling(row: Row, field: str, unit: str) -> str:
    cost = None if row.result is None else row.result.compiling
    value = None if cost is None else getattr(cost, field)
    return "" if value is None else format_value(float(value), unit)


def notes(comparison: Comparison) -> list[str]:
    """Each note once, with the artefacts that it is about where it is not about all of them."""
    who: dict[str, list[str]] = {}
    compiled = [row for row in comparison.rows if row.result is not None]
    for row in compiled:
        found = row.result.measurements if row.result is not None else Measurements()
        made = row.result.manifest.notes if row.result is not None else []
        for note in dict.fromkeys([*made, *found.notes]):
            who.setdefault(note, []).append(row.candidate.name)
    return [
        note if len(names) == len(compiled) else f"{', '.join(names)}: {note}" for note, names in who.items()
    ]
