"""The compiler's log: warnings and errors are kept as messages, layer tables as text, the rest is dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_TABLE = "Layers:\n"
# Without a GPU every build error is followed by a failed call of the CUDA runtime, which says nothing of it.
_NO_DRIVER = (
    "cudaError 35",
    "Cuda initialization failure with error: 35",
    "CUDA initialization failure with error: 35",
)


class Heard:
    """What one build has said."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.tables: list[str] = []


class Listener:
    """Where messages of the process's one logger go: to ``heard``, which each build replaces by its own."""

    def __init__(self, said: Callable[[str], None]) -> None:
        self.heard = Heard()
        self._said = said

    def take(self, severity: str, text: str) -> None:
        """Keep a message; ``severity`` is the name of the compiler's."""
        self._said(text)
        if severity in ("ERROR", "INTERNAL_ERROR"):
            if not any(noise in text for noise in _NO_DRIVER):
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
