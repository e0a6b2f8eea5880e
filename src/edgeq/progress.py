"""How long work reports that it moves on. The CLI shows it; library code only calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]


class Progress(Protocol):
    """Receives the progress of long work."""

    def task(self, description: str, total: int | None = None) -> AbstractContextManager[Advance]:
        """Open a task of ``total`` steps; the value yielded is called with the number of steps done."""
        ...

    def note(self, message: str) -> None:
        """Say one line that the user should see (a decision, a warning)."""
        ...


class SilentProgress:
    """Reports nothing: the default of the Python API."""

    @contextmanager
    def task(self, description: str, total: int | None = None) -> Iterator[Advance]:
        yield lambda _steps: None

    def note(self, message: str) -> None:
        return None
