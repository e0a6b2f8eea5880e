"""A comparison of language models for people: the table, what was missed, and the recommendation."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from edgeq.cli.tables import mark, note_lines, shown_path
from edgeq.comparison import Row
from edgeq.comparison_report import report_path
from edgeq.comparison_table import Column, state
from edgeq.language.comparison import LanguageComparison
from edgeq.language.table import WORDS, columns, notes

# Left out of the table in this order where the terminal is too narrow; the pages have them all.
_SPARED = ("peak memory", "first token", "KL p99", "runs in", "prompt", "top-1 agreement", "KL", "front")


def language_view(
    comparison: LanguageComparison, said: Iterable[str], *, debug: bool = False
) -> RenderableType:
    """The table; in sentences what was refused or failed; fresh notes; the recommendation."""
    parts: list[RenderableType] = [_heading(comparison), _Layout(comparison), ""]
    problems = [line for row in comparison.rows for line in _problems(row, debug)]
    if problems:
        parts += [*problems, ""]
    fresh = note_lines(notes(comparison), said)
    if fresh is not None:
        parts += [fresh, ""]
    return Group(*parts, *_closing(comparison))


def _heading(comparison: LanguageComparison) -> Text:
    count = len(comparison.rows)
    return Text.assemble((comparison.name, "bold"), f" → {count} row{'' if count == 1 else 's'}, ",
                         (", ".join(comparison.budgets), "bold"))  # fmt: skip


@dataclass(frozen=True)
class _Layout:
    """As many columns as fit."""

    comparison: LanguageComparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        def fits(table: Table) -> bool:
            return console.measure(table, options=options.update(width=10_000)).maximum <= options.max_width

        shown, spared = columns(self.comparison), []
        for title in ("", *_SPARED):
            if any(column.title == title for column in shown):
                shown = [column for column in shown if column.title != title]
                spared.append(title)
            if fits(_table(self.comparison, shown)):
                break
        yield _table(self.comparison, shown)
        if spared:
            yield Text(f"not shown for want of width: {', '.join(spared)}", style="dim")


def _table(comparison: LanguageComparison, shown: list[Column]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    table.add_column("", justify="right")
    for column in shown:
        table.add_column(column.title, justify="left" if column.title in WORDS else "right")
    table.add_column("budgets")
    table.add_row("", "", *(_first(column) for column in shown), "", style="dim")
    chosen = comparison.recommendation.name
    for i, row in enumerate(comparison.rows):
        style = "bold" if row.candidate.name == chosen else None
        table.add_row(_mark(row), str(i + 1), *(c.cells[i] for c in shown), state(row), style=style)
    return table


def _first(column: Column) -> str:
    return "FP32" if column.title == "format" else column.baseline


def _mark(row: Row) -> Text:
    return Text("-", style="dim") if row.refused else mark(row.passed)


def _problems(row: Row, debug: bool) -> list[Text]:
    """Why a row is empty, in a sentence; budgets that were missed are in the pages."""
    if row.error is None:
        return []
    style = "yellow" if row.refused else "bold red"
    lines = [Text.assemble((f"{row.candidate.name}: ", style), str(row.error))]
    if debug:
        lines.append(Text("".join(traceback.format_exception(row.error))))
    return lines


def _closing(comparison: LanguageComparison) -> list[Text]:
    lines = []
    found = comparison.recommendation
    chosen = next((row for row in comparison.rows if row.candidate.name == found.name), None)
    if chosen is not None and chosen.result is not None:
        lines.append(Text.assemble(("artefact  ", "bold"), shown_path(chosen.result.folder)))
    if any(row.result is not None for row in comparison.rows):
        lines.append(
            Text.assemble(("report    ", "bold"), shown_path(report_path(comparison.prefix, ".html")))
        )
    first, *others = found.sentences
    style = "bold green" if found.name is not None else "bold"
    return [*lines, Text(first, style=style), *(Text(line) for line in others)]
