"""The pages of a comparison of language models: HTML, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeq import __version__
from edgeq.benchmarks.gate import markdown_table, markdown_text
from edgeq.comparison import Row
from edgeq.comparison_report import PAGES, report_path, row_document, write_texts
from edgeq.errors import OutputExistsError
from edgeq.language.comparison import LanguageComparison
from edgeq.language.engines import HARDWARE
from edgeq.language.measures import PERPLEXITY, point_of
from edgeq.language.scatter import Mark, trade_charts
from edgeq.language.table import WORDS, columns, method_of, notes, reason
from edgeq.manifest import REPORT_FILE
from edgeq.report_html import Html, document, el, table

KIND = "language"


def refuse_foreign_pages(prefix: Path) -> None:
    """Pages of an earlier run are written again; others are not replaced.

    Raises:
        OutputExistsError: something else has their name.
    """
    paths = [report_path(prefix, suffix) for suffix in PAGES]
    there = [path for path in paths if path.exists()]
    if not there:
        return
    try:
        known = json.loads(report_path(prefix, ".json").read_text(encoding="utf-8"))["comparison"] == KIND
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise OutputExistsError(
            f"{there[0]} is there and is no page of edgeq compare.", fix="Give another output (-o)."
        )


def write_pages(comparison: LanguageComparison) -> None:
    """Write the three pages, unless there is no artefact to write them beside.

    Raises:
        UsageError: a file cannot be written.
    """
    if all(row.result is None for row in comparison.rows):
        return
    # The JSON comes first: a run that is killed here finds its own pages by it.
    texts = {
        ".json": json.dumps(to_document(comparison), indent=2, allow_nan=False) + "\n",
        ".md": render_markdown(comparison),
        ".html": render_html(comparison),
    }
    write_texts(comparison.prefix, texts)


def to_document(comparison: LanguageComparison) -> dict[str, Any]:
    """The comparison as JSON values; artefacts say more in their own ``edgeq.json``."""
    found = comparison.recommendation
    return {
        "edgeq": __version__,
        "comparison": KIND,
        "model": comparison.name,
        "passed": comparison.passed,
        "exit_code": comparison.exit_code,
        "budgets": list(comparison.budgets),
        "hardware": comparison.place.hardware,
        "ram": comparison.place.ram,
        "recommended": found.name,
        "closest": found.closest,
        "recommendation": list(found.sentences),
        "front": comparison.front,
        "calibrations": list(comparison.calibrations),
        "left_out": dict(comparison.left_out),
        "notes": list(comparison.notes),
        "rows": [_row(comparison, row) for row in comparison.rows],
    }


def _row(comparison: LanguageComparison, row: Row) -> dict[str, Any]:
    one, memory = row.candidate, comparison.memory.get(row.candidate.name)
    own = {
        "method": method_of(one),
        "scheme": None if one.recipe is None else one.recipe.scheme,
        "block_size": None if one.recipe is None else one.recipe.block_size,
        "calibration": one.calibration,
        "beaten_by": comparison.beaten.get(one.name),
        "run_memory": None if memory is None else {
            "weights": memory.weights, "cache": memory.cache, "context": memory.context,
        },
    }  # fmt: skip
    return {**row_document(row), **own}


def render_markdown(comparison: LanguageComparison) -> str:
    """The recommendation, the table and what is to be known of it: for a pull request."""
    head, rows = cells(comparison)
    first, *others = comparison.recommendation.sentences
    parts = [f"## {markdown_text(comparison.name)}", "", f"**{markdown_text(first)}**", ""]
    parts += [*(f"- {markdown_text(line)}" for line in others), *([""] if others else [])]
    parts += [*markdown_table(head, rows), ""]
    parts += [f"- {markdown_text(line)}" for line in notes(comparison)]
    return "\n".join(parts).rstrip() + "\n"


def cells(comparison: LanguageComparison) -> tuple[list[str], list[list[str]]]:
    """Head and rows, FP32 first; numbers come first, the state last."""
    shown = columns(comparison)
    head = ["", *(column.title for column in shown), "budgets"]
    rows = [["FP32", *(column.baseline for column in shown), ""]]
    for i, row in enumerate(comparison.rows):
        rows.append([str(i + 1), *(column.cells[i] for column in shown), reason(row)])
    return head, rows


def render_html(comparison: LanguageComparison) -> str:
    """The page's HTML: no script, nothing loaded from outside; it links the artefacts' own reports."""
    head, rows = cells(comparison)
    linked: list[Sequence[Html | str]] = [rows[0]]
    for row, texts in zip(comparison.rows, rows[1:], strict=True):
        linked.append([texts[0], _link(row, texts[1]), *texts[2:-1], _state(row, texts[-1])])
    numbers = [i for i, title in enumerate(head) if i and title not in WORDS]
    first, *others = comparison.recommendation.sentences
    charts = trade_charts(marks(comparison), baseline(comparison))
    said = [el("li", line) for line in notes(comparison)]
    sections = (
        el("header", el("div", el("h1", comparison.name, el("span", f" → {len(comparison.rows)} rows")),
                        el("p", _asked(comparison), class_="soft")), _badge(comparison)),
        el("section", el("h2", "Recommendation"), el("p", el("strong", first)),
           el("ul", *(el("li", line) for line in others)) if others else None),
        el("section", el("h2", "Trade-offs"), _legend(comparison),
           el("div", *(el("div", chart, class_="card") for chart in charts), class_="charts"))
        if charts else None,
        el("section", el("h2", "Rows"), table(head, linked, class_="tight", numeric=numbers)),
        el("section", el("h2", "Notes"), el("ul", *said)) if said else None,
        el("footer", f"Written by edgeq {__version__}."),
    )  # fmt: skip
    return document(f"{comparison.name}: methods and formats compared", *sections)


def marks(comparison: LanguageComparison) -> list[Mark]:
    """The rows that can be drawn."""
    chosen = comparison.recommendation.name
    found = []
    for number, row in enumerate(comparison.rows, 1):
        point = point_of(row)
        if point is not None:
            found.append(Mark(number, point, point.name not in comparison.beaten, point.name == chosen))
    return found


def baseline(comparison: LanguageComparison) -> float | None:
    """FP32's perplexity."""
    results = [row.result for row in comparison.rows if row.result is not None]
    found = [result.measurements.get(PERPLEXITY) for result in results]
    return next((m.baseline for m in found if m is not None and m.baseline is not None), None)


def _asked(comparison: LanguageComparison) -> str:
    place = comparison.place
    where = [f"on {HARDWARE[place.hardware]}"] if place.hardware else []
    memory = [f"{place.ram / 1e9:g} GB of memory"] if place.ram is not None else []
    return ", ".join([*comparison.budgets, *where, *memory])


def _badge(comparison: LanguageComparison) -> Html:
    name = comparison.recommendation.name
    if name is not None:
        return el("div", f"Ship {name}", class_="badge pass")
    return el("div", "Nothing keeps the budgets", class_="badge fail")


def _legend(comparison: LanguageComparison) -> Html:
    return el(
        "p", el("i", class_="ours"), el("span", "on the front: no row is better in one and worse in none"),
        el("i", class_="base"), el("span", "beaten by another row"),
        el("span", "numbers are those of the table; the large point is recommended"
           if comparison.recommendation.name else "numbers are those of the table"), class_="legend",
    )  # fmt: skip


def _link(row: Row, text: str) -> Html | str:
    return text if row.result is None else el("a", text, href=f"{row.result.folder.name}/{REPORT_FILE}")


def _state(row: Row, text: str) -> Html:
    return el("span", text, class_=None if row.passed else "soft" if row.refused else "bad")
