"""Names of files that are being written."""

from __future__ import annotations

from pathlib import Path


def part(path: Path, process: int) -> Path:
    """Where the process with the number ``process`` writes ``path`` until it is whole."""
    return path.with_name(f".{path.name}.{process}.part")
