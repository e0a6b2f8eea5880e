"""The last thing that the compiler said, in a file that outlives the process that it may have killed."""

from __future__ import annotations

import mmap
from pathlib import Path

_BYTES = 512


class LastSaid:
    """A mapped file of fixed size: writing costs no system call, and a crash of the writer loses nothing."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _BYTES)

    def __call__(self, text: str) -> None:
        self._map[:] = text[:_BYTES].encode(errors="replace")[:_BYTES].ljust(_BYTES, b"\0")


def prepare(path: Path) -> None:
    """Make the file empty, and as long as :class:`LastSaid` wants it."""
    path.write_bytes(bytes(_BYTES))


def read(path: Path) -> str:
    """What was said last; empty when nothing was."""
    return path.read_bytes().rstrip(b"\0").decode(errors="ignore").strip()
