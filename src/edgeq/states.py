"""Where a comparison keeps what the float model has computed: its states, beside the artefacts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

from edgeq.artefact import WORK
from edgeq.compiler.model import Model
from edgeq.machine import library_versions


@contextmanager
def states_of(original: Model, prefix: Path, threads: int | None) -> Iterator[Path | None]:
    """A folder for the states of a checkpoint; what a killed run left there is found again. None: a graph."""
    if not original.is_checkpoint:
        yield None
        return
    what = f"{original.source.sha256} {threads} {sorted(library_versions().items())}"
    folder = prefix.parent / WORK / f"states-{blake2b(what.encode(), digest_size=8).hexdigest()}"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.parent.rmdir()
