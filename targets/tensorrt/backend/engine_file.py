"""Engines written while they are built: the serialized form is never in memory as a whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from edgeq.targets.tensorrt.backend.parts import part


@contextmanager
def engine_file(path: Path | None, *, keep: bool) -> Iterator[BinaryIO]:
    """A file to write an engine into, which becomes ``path`` once it is whole and the block succeeds.

    Without a path it is a temporary one if ``keep`` (it will be read again), else nothing is stored.
    """
    if path is None:
        with tempfile.TemporaryFile() if keep else Path(os.devnull).open("wb") as file:
            yield file
        return
    unfinished = part(path, os.getpid())
    try:
        with unfinished.open("w+b") as file:
            yield file
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


class Writer:
    """Counts ``bytes`` and keeps the first ``failure``: an exception must not pass through the compiler."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.bytes = 0
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Returns the number of bytes written, 0 when they could not be."""
        try:
            written = self._file.write(data)
        except OSError as failure:
            self.failure = failure
            return 0
        self.bytes += written
        return written


def make_stream(trt: Any, writer: Writer) -> Any:
    """An ``IStreamWriter`` of the module ``trt`` around ``writer``."""

    class Stream(trt.IStreamWriter):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IStreamWriter.__init__(self)

        def write(self, data: Any) -> int:
            return writer.write(data)

    return Stream()
