"""A comparison for people: a row for each artefact, or a column where the terminal is narrow."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from edgeq.candidates import QUANTIZER
from edgeq.cli.tables import mark, missed_table, note_lines, shown_path
from edgeq.comparison import Comparison, Row
from edgeq.comparison_report import report_path
from edgeq.comparison_table import STATE, TARGET, columns, notes, state


def comparison_view(comparison: Comparison, said: Iterable[str], *, debug: bool = False) -> RenderableType:
    """The table; in sentences what was missed, refused or failed; fresh notes; the winner."""
    parts: list[RenderableType] = [_heading(comparison), _Layout(comparison), ""]
    problems = [line for row in comparison.rows for line in _problems(row, debug)]
    if problems:
        parts += [*problems, ""]
    parts += [line for row in comparison.rows for line in _missed_nodes(row)]
    fresh = note_lines(notes(comparison), said)
    if fresh is not None:
        parts += [fresh, ""]
    return Group(*parts, *_closing(comparison))


def _heading(comparison: Comparison) -> Text:
    count = len(comparison.rows)
    return Text.assemble(
        (comparison.name, "bold"),
        f" → {count} artefact{'' if count == 1 else 's'}, ",
        (comparison.recipe.scheme, "bold"),
    )


@dataclass(frozen=True)
class _Layout:
    """Artefacts as rows where they fit, else as columns: as many side by side as fit, the others below."""

    comparison: Comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        def fits(table: Table) -> bool:
            wide = options.update(width=10_000)
            return console.measure(table, options=wide).maximum <= options.max_width

        rows = _as_rows(self.comparison)
        if fits(rows):
            yield rows
            return
        # What was not compiled has no column: it is a sentence below.
        left = [i for i, row in enumerate(self.comparison.rows) if row.result is not None]
        while left:
            counts = range(len(left), 1, -1)
            count = next((n for n in counts if fits(_as_columns(self.comparison, left[:n]))), 1)
            yield _as_columns(self.comparison, left[:count])
            left = left[count:]
            if left:
                yield ""


def _as_rows(comparison: Comparison) -> Table:
    shown = columns(comparison)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    table.add_column(TARGET)
    for column in shown:
        table.add_column(column.title, justify="left" if column.title == QUANTIZER else "right")
    table.add_column(STATE)
    if any(column.baseline for column in shown):
        table.add_row("", "FP32", *(column.baseline for column in shown), "", style="dim")
    for i, row in enumerate(comparison.rows):
        table.add_row(_mark(row), row.candidate.name, *(column.cells[i] for column in shown), state(row))
    return table


def _as_columns(comparison: Comparison, compiled: Sequence[int]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    table.add_column("FP32", justify="right", style="dim")
    for i in compiled:
        table.add_column(comparison.rows[i].candidate.name, justify="right", overflow="fold")
    for column in columns(comparison):
        table.add_row(column.title, column.baseline, *(column.cells[i] for i in compiled))
    table.add_row(STATE, "", *(_marked(comparison.rows[i]) for i in compiled))
    return table


def _mark(row: Row) -> Text:
    return Text("-", style="dim") if row.refused else mark(row.passed)


def _marked(row: Row) -> Text:
    return Text.assemble(_mark(row), " ", state(row))


def _problems(row: Row, debug: bool) -> list[Text]:
    """Why a row is empty or did not pass, in sentences."""
    style = "yellow" if row.refused else "bold red"
    if row.error is not None:
        sentences = [str(row.error)]
    else:
        sentences = [] if row.result is None else [v.sentence for v in row.result.verdicts if not v.passed]
    lines = [Text.assemble((f"{row.candidate.name}: ", style), sentence) for sentence in sentences]
    if debug and row.error is not None:
        lines.append(Text("".join(traceback.format_exception(row.error))))
    return lines


def _missed_nodes(row: Row) -> list[RenderableType]:
    missed = [] if row.result is None else row.result.manifest.missed
    if not missed:
        return []
    title = f"{row.candidate.name}: {len(missed)} planned node(s) run in float instead:"
    return [Text(title, style="yellow"), missed_table(missed)]


def _closing(comparison: Comparison) -> list[Text]:
    folders = [row.result.folder for row in comparison.rows if row.result is not None]
    lines = [Text.assemble(("artefact  ", "bold"), shown_path(folder)) for folder in folders]
    if folders:
        page = report_path(comparison.prefix, ".html")
        lines.append(Text.assemble(("report    ", "bold"), shown_path(page)))
    won = comparison.winner.name is not None
    lines.append(Text(comparison.winner.sentence, style="bold green" if won else "bold"))
    return lines
