"""Files that are being written."""

from __future__ import annotations

from pathlib import Path

from edgeq.targets.tensorrt.backend.request import BuildRequest


def part(path: Path, process: int) -> Path:
    """Where the process with the number ``process`` writes ``path`` until it is whole."""
    return path.with_name(f".{path.name}.{process}.part")


def remove_parts(request: BuildRequest, process: int) -> None:
    """Remove what ``process`` left of ``request`` when it was interrupted."""
    for path in (request.engine, request.timing_cache):
        if path is not None:
            part(path, process).unlink(missing_ok=True)
