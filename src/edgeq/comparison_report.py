"""The pages of a comparison beside its artefacts: HTML, Markdown and JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeq import __version__
from edgeq.benchmarks.gate import markdown_table, markdown_text
from edgeq.benchmarks.measurement import json_number
from edgeq.benchmarks.verdicts import Verdict
from edgeq.comparison import Comparison, Row
from edgeq.comparison_table import STATE, TARGET, columns, notes, state
from edgeq.errors import OutputExistsError, UsageError
from edgeq.manifest import REPORT_FILE
from edgeq.report_html import Html, document, el, table

PAGES = (".html", ".md", ".json")


def report_path(prefix: Path, suffix: str) -> Path:
    """Where a page of the comparison goes: ``<output>-comparison.html``."""
    return prefix.with_name(f"{prefix.name}-comparison{suffix}")


def refuse_reports(prefix: Path, *, force: bool) -> None:
    """Refuse pages that are there, before any work.

    Raises:
        OutputExistsError: and ``force`` is not given, or it is no file.
    """
    for path in (report_path(prefix, suffix) for suffix in PAGES):
        if path.is_dir():
            raise OutputExistsError(f"{path} is there and is no file.", fix="Give another output.")
        if os.path.lexists(path) and not force:
            raise OutputExistsError(f"{path} is there.", fix="Give --force to replace it, or another output.")


def write_comparison(comparison: Comparison) -> None:
    """Write the three pages, unless there is no artefact to write them beside.

    Raises:
        UsageError: a file cannot be written.
    """
    if all(row.result is None for row in comparison.rows):
        return
    texts = {
        ".html": render_html(comparison),
        ".md": render_markdown(comparison),
        ".json": json.dumps(comparison_document(comparison), indent=2, allow_nan=False) + "\n",
    }
    write_texts(comparison.prefix, texts)


def write_texts(prefix: Path, texts: Mapping[str, str]) -> None:
    """Write pages, suffix → text.

    Raises:
        UsageError: a file cannot be written.
    """
    for suffix, text in texts.items():
        path = report_path(prefix, suffix)
        try:
            path.write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise UsageError(
                f"The report {path} cannot be written: {error.strerror}.", fix="Give another output."
            ) from error


def comparison_document(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON values; artefacts say more in their own ``edgeq.json``."""
    return {
        "edgeq": __version__,
        "model": comparison.name,
        "scheme": comparison.recipe.scheme,
        "threads": comparison.threads,
        "passed": comparison.passed,
        "exit_code": comparison.exit_code,
        "winner": comparison.winner.name,
        "verdict": comparison.winner.sentence,
        "rows": [row_document(row) for row in comparison.rows],
    }


def row_document(row: Row) -> dict[str, Any]:
    """A row as JSON values."""
    found, error = row.result, row.error
    return {
        "name": row.candidate.name,
        "target": row.candidate.target,
        "quantizer": row.quantizer,
        "options": dict(row.candidate.options),
        "state": "refused" if row.refused else "failed" if error is not None else "compiled",
        "reason": None if error is None else error.what,
        "fix": None if error is None else error.fix,
        "passed": row.passed,
        "exit_code": row.exit_code,
        "folder": None if found is None else str(found.folder),
        "quantized_nodes": {"planned": row.planned, "ran": row.ran},
        "compiling": None if found is None or found.compiling is None else found.compiling.model_dump(),
        "measured": None if found is None else found.measurements.to_json(),
        "one_thread": {name: json_number(m.value) for name, m in row.one_thread.items()},
        "verdicts": [] if found is None else [verdict.to_json() for verdict in found.verdicts],
    }


def render_markdown(comparison: Comparison) -> str:
    """One table, the winner, and what did not pass: for a pull request or a job summary."""
    head, rows = _cells(comparison)
    title = markdown_text(f"{comparison.name}, {comparison.recipe.scheme}")
    parts = [f"## {title}", "", *markdown_table(head, rows), ""]
    parts += [markdown_text(comparison.winner.sentence), ""]
    parts += [f"- {markdown_text(f'{name}: {verdict.sentence}')}" for name, verdict in _missed(comparison)]
    return "\n".join(parts).rstrip() + "\n"


def _cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Head and rows, FP32 first; the state is the last column."""
    shown = columns(comparison)
    head = [TARGET, *(column.title for column in shown), STATE]
    rows = [["FP32", *(column.baseline for column in shown), ""]]
    for i, row in enumerate(comparison.rows):
        rows.append([row.candidate.name, *(column.cells[i] for column in shown), _reason(row)])
    return head, rows


def _reason(row: Row) -> str:
    """The state, with the sentence that explains an empty row."""
    return state(row) if row.error is None else f"{state(row)}: {row.error.what}"


def _missed(comparison: Comparison) -> list[tuple[str, Verdict]]:
    return [
        (row.candidate.name, verdict)
        for row in comparison.rows
        if row.result is not None
        for verdict in row.result.verdicts
        if not verdict.passed
    ]


def render_html(comparison: Comparison) -> str:
    """The page's HTML: no script, nothing loaded from outside; it links the artefacts' own reports."""
    head, rows = _cells(comparison)
    title = f"{comparison.name}: edgeq comparison"
    linked: list[list[Html | str]] = [list(rows[0])]
    for row, cells in zip(comparison.rows, rows[1:], strict=True):
        linked.append([_link(row), *cells[1:-1], _state(row, cells[-1])])
    missed = [el("li", f"{name}: {verdict.sentence}") for name, verdict in _missed(comparison)]
    said = [el("li", note) for note in notes(comparison)]
    sections = (
        el("header", el("div", el("h1", comparison.name, el("span", f" → {_count(comparison)}")),
                        el("p", comparison.recipe.scheme, class_="soft")), _badge(comparison)),
        el("p", comparison.winner.sentence),
        el("section", table(head, linked, numeric=range(2, len(head) - 1))),
        el("section", el("h2", "Missed"), el("ul", *missed)) if missed else None,
        el("section", el("h2", "Notes"), el("ul", *said)) if said else None,
        el("footer", f"Written by edgeq {__version__}. Latencies of all were timed in turns in one process."),
    )  # fmt: skip
    return document(title, *sections)


def _count(comparison: Comparison) -> str:
    made = sum(row.result is not None for row in comparison.rows)
    return f"{made} artefact" if made == 1 else f"{made} artefacts"


def _badge(comparison: Comparison) -> Html:
    if comparison.winner.name is not None:
        return el("div", f"Winner: {comparison.winner.name}", class_="badge pass")
    return el("div", "No winner", class_="badge" if comparison.passed else "badge fail")


def _link(row: Row) -> Html | str:
    if row.result is None:
        return row.candidate.name
    return el("a", row.candidate.name, href=f"{row.result.folder.name}/{REPORT_FILE}")


def _state(row: Row, text: str) -> Html:
    return el("span", text, class_=None if row.passed else "soft" if row.refused else "bad")
