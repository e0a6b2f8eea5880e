"""The gate: the verdicts of several artefacts as one result, with a table, JSON and a job summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeq.benchmarks.measurement import Measurements
from edgeq.benchmarks.tables import metric_rows
from edgeq.benchmarks.verdicts import Verdict, all_passed


@dataclass(frozen=True)
class Outcome:
    """What came of one artefact.

    Attributes:
        name: what tables call it; unique within a gate (the target, or model and target).
        target: the target's name.
        verdicts: one per budget.
        measurements: what they were judged by; None when it came to no measuring.
        error: why there is no artefact, or why it could not be measured; None when all went well.
        seconds: what it took, for the test report; None when unknown.
    """

    name: str
    target: str
    verdicts: tuple[Verdict, ...] = ()
    measurements: Measurements | None = None
    error: str | None = None
    seconds: float | None = None

    @property
    def passed(self) -> bool:
        """No error, and every budget kept."""
        return self.error is None and all_passed(self.verdicts)


@dataclass(frozen=True)
class Row:
    """A line of the verdict table; ``status`` is that of a verdict, or ``error``."""

    name: str
    budget: str
    measured: str
    limit: str
    status: str
    sentence: str


@dataclass(frozen=True)
class Gate:
    """The outcomes of one run. It passes only if there are outcomes and all of them do."""

    outcomes: tuple[Outcome, ...] = field(default=())

    @property
    def passed(self) -> bool:
        return bool(self.outcomes) and all(outcome.passed for outcome in self.outcomes)

    @property
    def verdicts(self) -> list[Verdict]:
        """All verdicts of all outcomes."""
        return [verdict for outcome in self.outcomes for verdict in outcome.verdicts]

    def headline(self) -> str:
        """One line: ``2 of 5 budgets missed``, ``all 5 budgets kept``."""
        errors = sum(outcome.error is not None for outcome in self.outcomes)
        missed = sum(not verdict.passed for verdict in self.verdicts)
        total = len(self.verdicts)
        parts = []
        if not self.outcomes:
            parts.append("nothing was checked")
        if errors:
            parts.append(f"{errors} of {len(self.outcomes)} artefact{_s(len(self.outcomes))} failed")
        if missed:
            parts.append(f"{missed} of {total} budget{_s(total)} missed")
        elif total:
            parts.append("the budget is kept" if total == 1 else f"all {total} budgets kept")
        return ", ".join(parts) or "no budgets were given"

    def rows(self) -> list[Row]:
        """The verdict table: errors and verdicts, in order."""
        rows = []
        for outcome in self.outcomes:
            if outcome.error is not None:
                rows.append(Row(outcome.name, "-", "-", "-", "error", outcome.error))
            rows += [
                Row(outcome.name, v.budget, v.measured, v.limit, v.status, v.sentence)
                for v in outcome.verdicts
            ]
        return rows

    def to_json(self) -> dict[str, Any]:
        """JSON values only: ``{"passed", "headline", "outcomes": [...]}``."""
        return {
            "passed": self.passed,
            "headline": self.headline(),
            "outcomes": [_outcome_json(outcome) for outcome in self.outcomes],
        }

    def to_markdown(self) -> str:
        """The job summary: headline, verdict table, and the metrics of every artefact to unfold."""
        mark = "✅" if self.passed else "❌"
        parts = [f"## {mark} edgeq: {markdown_text(self.headline())}", ""]
        rows = self.rows()
        if rows:
            head = ("", "artefact", "budget", "measured", "limit", "what")
            parts += markdown_table(head, [_markdown_row(row) for row in rows])
        for outcome in self.outcomes:
            if outcome.measurements:
                parts += [f"\n❌ {markdown_text(finding)}" for finding in outcome.measurements.findings]
                parts += _markdown_metrics(outcome, outcome.measurements)
        return "\n".join(parts) + "\n"


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.name,
        "target": outcome.target,
        "passed": outcome.passed,
        "error": outcome.error,
        "verdicts": [verdict.to_json() for verdict in outcome.verdicts],
        "measured": None if outcome.measurements is None else outcome.measurements.to_json(),
    }


def _markdown_row(row: Row) -> Sequence[str]:
    mark = "✅" if row.status == "pass" else "❌"
    return (mark, row.name, row.budget, row.measured, row.limit, row.sentence)


def _markdown_metrics(outcome: Outcome, measurements: Mapping[str, Any]) -> list[str]:
    rows = [
        (row.metric, row.baseline, row.value, row.change, row.interval, row.remark)
        for row in metric_rows(measurements)
    ]
    head = ("metric", "FP32", "artefact", "change", "95 % interval", "how")
    summary = f"<details><summary>Measurements of {markdown_text(outcome.name)}</summary>"
    return ["", summary, "", *markdown_table(head, rows), "", "</details>"]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table; cells are plain text."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(map(markdown_text, row))} |" for row in rows]


_MARKDOWN = str.maketrans(
    {
        "|": "\\|",
        "<": "&lt;",
        ">": "&gt;",
        "&": "&amp;",
        "\n": " ",
        "\r": " ",
        "`": "\\`",
        "*": "\\*",
        "_": "\\_",
    }
)


def markdown_text(text: str) -> str:
    """Plain text that Markdown shows as it is, on one line."""
    return text.translate(_MARKDOWN)
