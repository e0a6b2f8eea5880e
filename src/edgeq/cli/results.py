"""How commands end: the result shown or emitted, and the exit code that it deserves."""

from __future__ import annotations

from typing import Any

import typer

from edgeq.cli.tables import result_view
from edgeq.cli.terminal import Terminal
from edgeq.comparison import Comparison
from edgeq.errors import BudgetMissedError
from edgeq.result import CompileResult


def show_result(terminal: Terminal, result: CompileResult) -> None:
    """Show or emit a result, and leave with 1 when a budget was missed."""
    terminal.show(result_view(result, said=terminal.said))
    terminal.emit(result_document(result))
    if not result.passed:
        raise typer.Exit(BudgetMissedError.exit_code)


def show_comparison(terminal: Terminal, comparison: Comparison) -> None:
    """Show or emit a comparison, and leave with the code that its rows deserve."""
    from edgeq.cli.comparison_tables import comparison_view
    from edgeq.comparison_report import comparison_document

    terminal.show(comparison_view(comparison, terminal.said, debug=terminal.debug))
    terminal.emit(comparison_document(comparison))
    if comparison.exit_code:
        raise typer.Exit(comparison.exit_code)


def result_document(result: CompileResult) -> dict[str, Any]:
    """A result as JSON: where the artefact is, whether it passed, and its manifest."""
    import json

    return {
        "folder": str(result.folder),
        "passed": result.passed,
        "manifest": json.loads(result.manifest.to_text()),
    }
