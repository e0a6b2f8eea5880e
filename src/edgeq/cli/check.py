"""``edgeq check``: the CI gate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.options import OUTPUT
from edgeq.cli.terminal import DebugFlag, JsonFlag, QuietFlag, session


def check(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file that names the model, its data and its targets.")
    ] = Path("edgeq.toml"),
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="Check only the target of this name. Repeatable."),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            rich_help_panel=OUTPUT,
            help="Replace artefacts that are there (also: overwrite = true).",
        ),
    ] = False,
    junit: Annotated[
        Path | None,
        typer.Option(
            "--junit", metavar="FILE", rich_help_panel=OUTPUT, help="JUnit XML; instead of report.junit."
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json-file", metavar="FILE", rich_help_panel=OUTPUT, help="JSON; instead of report.json."
        ),
    ] = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Compile, measure and judge every target of an edgeq.toml: the gate for CI.

    Exits with 1 when a budget is missed, with a target's error code when it cannot be compiled (the worst of
    all targets counts), and appends Markdown to $GITHUB_STEP_SUMMARY where that is set.
    """
    with session(json=json, quiet=quiet, debug=debug) as terminal:
        from edgeq.config import load_config

        config = load_config(file)

        from edgeq.check import run_check
        from edgeq.check_reports import check_document, write_reports
        from edgeq.cli.check_tables import check_view

        with terminal.progress() as progress:
            result = run_check(config, only=only or (), force=force, progress=progress)
        summary = os.environ.get("GITHUB_STEP_SUMMARY")
        written = write_reports(
            result,
            junit=junit or config.junit,
            json_file=json_file or config.json_file,
            summary=Path(summary) if summary else None,
        )
        terminal.show(check_view(result, terminal.said, written, debug=debug))
        terminal.emit(check_document(result))
        if result.exit_code:
            raise typer.Exit(result.exit_code)
