"""``edgeq lint``: what a target would make of a quantized model, before anything is built."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.cli.options import DimensionOption, SmOption, TargetOption, target_options_from
from edgeq.cli.terminal import DebugFlag, JsonFlag, session

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from edgeq.linting import LintResult
    from edgeq.targets.base import Finding

FAULTY = 1
# Findings of one rule that are shown: tools break a rule everywhere or nowhere.
SHOWN = 10
# Outcome → heading and colour, the worst first.
OUTCOMES = {
    "fails": ("fails to build", "bold red"),
    "wrong": ("builds, and computes something else", "bold red"),
    "float": ("builds, and runs in float although it is quantized", "bold yellow"),
    "slow": ("works, slower than it could", "yellow"),
    "note": ("worth knowing", "dim"),
}


def lint(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="An ONNX file, quantized by any tool into QDQ form.")
    ],
    target: Annotated[
        str, typer.Option("--target", "-t", metavar="NAME", help="What the model is for: tensorrt.")
    ],
    sm: SmOption = None,
    target_option: TargetOption = None,
    dimension: DimensionOption = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Say which nodes of MODEL the target refuses, leaves in float or gets wrong, and how to mend them.

    Nothing is built or run. Exits with 1 when anything fails, is wrong or runs in float.
    """
    with session(json=json, debug=debug) as terminal:
        options = target_options_from(target_option, dimension, None, None, sm)

        import edgeq

        result = edgeq.lint(model, target=target, target_options=options)
        terminal.show(*_view(result))
        terminal.emit(_document(result))
        if not result.passed:
            raise typer.Exit(FAULTY)


def _view(result: LintResult) -> Iterator[RenderableType]:
    for outcome in OUTCOMES:
        found = [finding for finding in result.findings if finding.outcome == outcome]
        if found:
            yield from _group(outcome, found)
            yield ""
    yield _closing(result)


def _group(outcome: str, findings: Sequence[Finding]) -> Iterator[RenderableType]:
    """The heading, then for each finding the node with what is wrong, and the mend below it."""
    from rich.table import Table
    from rich.text import Text

    heading, style = OUTCOMES[outcome]
    yield Text(f"{heading} ({len(findings)})", style=style)
    table = Table.grid(padding=(0, 2))
    counts = Counter(finding.rule for finding in findings)
    shown: Counter[str] = Counter()
    for finding in findings:
        rule, shown[finding.rule] = finding.rule, shown[finding.rule] + 1
        if shown[rule] <= SHOWN:
            where = Text.assemble("  ", (finding.node, "bold"), f" ({finding.op_type})")
            table.add_row(where, Text(rule, style="dim"), f"{finding.what}. {finding.mend}")
        if shown[rule] == SHOWN + 1:
            more = f"and {counts[rule] - SHOWN} more: see --json"
            table.add_row(Text("  …"), Text(rule, style="dim"), Text(more, style="dim"))
    yield table


def _closing(result: LintResult) -> RenderableType:
    from rich.text import Text

    counts = ", ".join(f"{result.counts[o]} {o}" for o in OUTCOMES if o in result.counts)
    style = "bold green" if result.passed else "bold red"
    return Text(f"{result.model} for {result.target}: {counts or 'nothing found'}", style=style)


def _document(result: LintResult) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "model": result.model,
        "target": result.target,
        "passed": result.passed,
        "counts": result.counts,
        "findings": [asdict(finding) for finding in result.findings],
    }
