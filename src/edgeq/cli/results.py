"""How commands end: the result shown or emitted, and the exit code that it deserves."""

from __future__ import annotations

from typing import Any

import typer

from edgeq.cli.tables import result_view
from edgeq.cli.terminal import Terminal
from edgeq.errors import BudgetMissedError
from edgeq.result import CompileResult


def show_result(terminal: Terminal, result: CompileResult) -> None:
    """Show or emit a result, and leave with 1 when a budget was missed."""
    terminal.show(result_view(result, said=terminal.said))
    terminal.emit(result_document(result))
    if not result.passed:
        raise typer.Exit(BudgetMissedError.exit_code)


def result_document(result: CompileResult) -> dict[str, Any]:
    """A result as JSON: where the artefact is, whether it passed, and its manifest."""
    import json

    return {
        "folder": str(result.folder),
        "passed": result.passed,
        "manifest": json.loads(result.manifest.to_text()),
    }
