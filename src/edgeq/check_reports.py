"""What a check leaves behind: JUnit XML, JSON, and Markdown for a job summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeq import __version__
from edgeq.benchmarks.junit import to_junit
from edgeq.check import CheckResult
from edgeq.errors import UsageError


def write_reports(
    result: CheckResult, *, junit: Path | None, json_file: Path | None, summary: Path | None
) -> list[Path]:
    """Write the reports that were asked for and return their paths; Markdown is appended to ``summary``.

    Raises:
        UsageError: a file cannot be written.
    """
    written = []
    if junit is not None:
        written.append(_write(junit, to_junit(result.gate)))
    if json_file is not None:
        written.append(
            _write(json_file, json.dumps(check_document(result), indent=2, allow_nan=False) + "\n")
        )
    if summary is not None:
        written.append(_write(summary, result.gate.to_markdown() + "\n", append=True))
    return written


def check_document(result: CheckResult) -> dict[str, Any]:
    """The check as JSON values: the gate's document, exit codes, artefact folders and missed nodes."""
    document = result.gate.to_json()
    for entry, outcome in zip(document["outcomes"], result.outcomes, strict=True):
        entry["scheme"] = outcome.entry.recipe.scheme
        entry["exit_code"] = outcome.exit_code
        entry["seconds"] = round(outcome.seconds, 3)
        entry["folder"] = None if outcome.result is None else str(outcome.result.folder)
        entry["missed_nodes"] = [node.name for node in outcome.missed_nodes]
    config = str(result.config.path)
    return {"edgeq": __version__, "config": config, "exit_code": result.exit_code, **document}


def _write(path: Path, text: str, *, append: bool = False) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a" if append else "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(
            f"The report {path} cannot be written: {reason}.", fix="Give another file."
        ) from error
    return path
