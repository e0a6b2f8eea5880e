"""The compiler's log: warnings, errors and layer tables are kept, the rest is only listened to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_TABLE = "Layers:\n"


@dataclass(frozen=True)
class Heard:
    """What one build has said, in order."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)


class Listener:
    """Where the process's one logger brings its messages; every build has a new ``heard``."""

    def __init__(self, said: Callable[[str], None]) -> None:
        self.heard = Heard()
        self._said = said

    def begin(self) -> Heard:
        """Forget what was heard before."""
        self.heard = Heard()
        return self.heard

    def take(self, severity: str, text: str) -> None:
        """Keep a message if it matters; ``severity`` is the compiler's name of it."""
        self._said(text)
        if severity in ("ERROR", "INTERNAL_ERROR"):
            self.heard.errors.append(text)
        elif severity == "WARNING":
            self.heard.warnings.append(text)
        elif text.startswith(_TABLE):
            self.heard.tables.append(text)


def make_logger(trt: Any, listener: Listener) -> Any:
    """An ``ILogger`` of the module ``trt`` (a process can only ever have one: the first stays)."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            listener.take(severity.name, text)

    return Log()
