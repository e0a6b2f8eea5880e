"""Where a comparison keeps what the float model has computed: its states, beside the artefacts."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeq.artefact import locked, remove_unlocked
from edgeq.compiler.model import Model

_PREFIX = ".edgeq-states-"


@contextmanager
def states_beside(place: Path, original: Model, artefacts: int) -> Iterator[Path | None]:
    """A folder beside ``place`` for the states of ``original``, of this run alone; it is removed at the end.

    None where nothing is to be gained: of a graph, for one artefact, and where no folder can be made. What
    killed runs left there is removed.
    """
    folder = _made(place.parent) if original.is_checkpoint and artefacts > 1 else None
    if folder is None:
        yield None
        return
    lock = locked(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _made(parent: Path) -> Path | None:
    try:
        parent.mkdir(parents=True, exist_ok=True)
        remove_unlocked(parent.glob(f"{_PREFIX}*"))
        return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    except OSError:
        return None
