"""``edgeq verify``: prove an artefact, or a Core ML package of any origin, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeq.cli.options import ThreadsOption
from edgeq.cli.terminal import DebugFlag, JsonFlag, QuietFlag, Terminal, session

if TYPE_CHECKING:
    from edgeq.verify import Verification

FAILED = 1


def verify(
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="The folder that edgeq compile wrote, or an .mlpackage."),
    ],
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference",
            metavar="MODEL",
            help="For an .mlpackage: the ONNX model that it must compute the same as.",
        ),
    ] = None,
    threads: ThreadsOption = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Prove PATH again: its bytes, its numbers against the model it came from, its precisions.

    A check that fails makes the exit code 1.
    """
    with session(json=json, quiet=quiet, debug=debug) as terminal:
        found = _verified(path, reference, threads)
        _show(terminal, found)
        if not found.passed:
            raise typer.Exit(FAILED)


def _verified(path: Path, reference: Path | None, threads: int | None) -> Verification:
    from edgeq.errors import UsageError
    from edgeq.verify import verify as verify_artefact

    package = path.suffix == ".mlpackage"
    if package != (reference is not None):
        raise UsageError(
            "--reference belongs to an .mlpackage, and an .mlpackage needs it.",
            fix="Give an artefact folder alone, or an .mlpackage with --reference model.onnx.",
        )
    if reference is None:
        return verify_artefact(path, threads=threads)
    from edgeq.targets.coreml.verification.foreign import verify_package
    from edgeq.verify import Verification

    how, checks = verify_package(path, reference, threads=threads)
    return Verification(path, "coreml", how, checks)


def _show(terminal: Terminal, found: Verification) -> None:
    from dataclasses import asdict

    from rich.table import Table
    from rich.text import Text

    from edgeq.cli.tables import mark

    table = Table.grid(padding=(0, 1))
    for check in found.checks:
        wanted = Text("" if check.passed else f"wanted: {check.wanted}", style="dim")
        table.add_row(mark(check.passed), Text(check.name), Text(check.found), wanted)
    passed = sum(check.passed is True for check in found.checks)
    untried = sum(check.passed is None for check in found.checks)
    counts = f"{passed} of {len(found.checks)} checks passed" + (f", {untried} not tried" if untried else "")
    terminal.show(
        Text(f"{found.folder} ({found.target})", style="bold"),
        table,
        Text(f"{counts}; {found.how}"),
    )
    terminal.emit(
        {
            "folder": str(found.folder),
            "target": found.target,
            "how": found.how,
            "passed": found.passed,
            "checks": [asdict(check) for check in found.checks],
        }
    )
