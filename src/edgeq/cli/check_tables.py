"""A check as one table for people."""

from __future__ import annotations

import traceback
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgeq.benchmarks.measurement import Measurement, Measurements
from edgeq.benchmarks.metric_info import RESOURCES
from edgeq.benchmarks.units import format_difference, format_value
from edgeq.check import CheckResult, Outcome
from edgeq.cli.tables import mark, missed_table, note_lines, result_notes, shown_path


def check_view(
    result: CheckResult, said: Iterable[str], written: Sequence[Path], *, debug: bool = False
) -> RenderableType:
    """One row for each target, then what was missed, failed or is worth knowing."""
    parts: list[RenderableType] = [_table(result)]
    problems = [line for outcome in result.outcomes for line in _problem_lines(outcome, debug)]
    if problems:
        parts += ["", *problems]
    parts += [line for outcome in result.outcomes for line in _missed_lines(outcome)]
    notes = note_lines(_notes(result, set(said)))
    if notes is not None:
        parts += ["", notes]
    return Group(*parts, "", *_closing(result, written))


def _table(result: CheckResult) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for title in ("", "target", "size", "latency", "speedup", "accuracy", "budgets"):
        table.add_column(title, overflow="fold")
    measured = [outcome.result.measurements for outcome in result.outcomes if outcome.result is not None]
    if measured:
        table.add_row("", "FP32", *_baseline_cells(measured[0]), style="dim")
    for outcome in result.outcomes:
        table.add_row(mark(outcome.passed), _name(outcome, result), *_cells(outcome))
    return table


def _name(outcome: Outcome, result: CheckResult) -> str:
    """The target is named only where the file has several."""
    several = len({other.entry.target for other in result.outcomes}) > 1
    return f"{outcome.entry.name} {outcome.entry.target}" if several else outcome.entry.name


def _baseline_cells(found: Measurements) -> tuple[str, ...]:
    """The FP32 original, as it was measured beside the first target."""
    quality = _first_quality(found)
    accuracy = "" if quality is None or quality.baseline is None else f"{quality.metric} {_baseline(quality)}"
    return _baseline(found.get("size")), _baseline(found.get("latency_p50")), "", accuracy, ""


def _cells(outcome: Outcome) -> tuple[str, ...]:
    """Size, median latency, speedup, accuracy and kept budgets, each a few characters."""
    if outcome.result is None:
        return "", "", "", "", "error"
    found, verdicts = outcome.result.measurements, outcome.result.verdicts
    kept = f"{sum(v.passed for v in verdicts)}/{len(verdicts)}" if verdicts else "none"
    return (
        _size(found.get("size")),
        _value(found.get("latency_p50")),
        _value(found.get("speedup")),
        _quality(_first_quality(found)),
        kept,
    )


def _baseline(measured: Measurement | None) -> str:
    if measured is None or measured.baseline is None:
        return ""
    return format_value(measured.baseline, measured.unit)


def _value(measured: Measurement | None) -> str:
    return "" if measured is None else format_value(measured.value, measured.unit)


def _size(measured: Measurement | None) -> str:
    if measured is None or measured.ratio is None:
        return _value(measured)
    return f"{_value(measured)} ({measured.ratio:.0%})"


def _first_quality(found: Measurements) -> Measurement | None:
    return next((found[metric] for metric in found if metric not in RESOURCES), None)


def _quality(measured: Measurement | None) -> str:
    """The metric and its difference to FP32."""
    if measured is None or measured.difference is None:
        return "" if measured is None else f"{measured.metric} {_value(measured)}"
    change = format_difference(measured.difference, measured.unit).removesuffix(" points")
    return f"{measured.metric} {_value(measured)} ({change})"


def _problems(outcome: Outcome) -> list[str]:
    """Why a target did not pass, in sentences."""
    if outcome.error is not None:
        return [str(outcome.error)]
    return [] if outcome.result is None else [v.sentence for v in outcome.result.verdicts if not v.passed]


def _problem_lines(outcome: Outcome, debug: bool) -> list[Text]:
    lines = [
        Text.assemble((f"{outcome.entry.name}: ", "bold red"), sentence) for sentence in _problems(outcome)
    ]
    if debug and outcome.error is not None:
        lines.append(Text("".join(traceback.format_exception(outcome.error))))
    return lines


def _missed_lines(outcome: Outcome) -> list[RenderableType]:
    missed = outcome.missed_nodes
    if not missed:
        return []
    title = f"{outcome.entry.name}: {len(missed)} planned node(s) run in float instead:"
    return [Text(title, style="yellow"), missed_table(missed)]


def _notes(result: CheckResult, said: Collection[str]) -> list[str]:
    """Each note that was not said before once, with the targets that it is about."""
    names: dict[str, list[str]] = {}
    for outcome in result.outcomes:
        for note in [] if outcome.result is None else result_notes(outcome.result):
            if note not in said:
                names.setdefault(note, []).append(outcome.entry.name)
    everywhere = len(result.outcomes)
    return [note if len(who) == everywhere else f"{', '.join(who)}: {note}" for note, who in names.items()]


def _closing(result: CheckResult, written: Sequence[Path]) -> list[Text]:
    lines = [
        Text.assemble(("artefact  ", "bold"), shown_path(outcome.result.folder))
        for outcome in result.outcomes
        if outcome.result is not None
    ]
    headline = result.gate.headline()
    lines.append(
        Text(headline[:1].upper() + headline[1:], style="bold green" if result.passed else "bold red")
    )
    return lines + [Text.assemble(("report    ", "bold"), shown_path(path)) for path in written]
