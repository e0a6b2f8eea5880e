"""Progress of a build as the compiler reports it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Takes an event of the worker as a JSON object.
Emit = Callable[[dict[str, Any]], None]


def make_monitor(trt: Any, emit: Emit) -> Any:
    """An ``IProgressMonitor`` of the module ``trt`` that reports the outermost phase and its steps."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._outermost = ""

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            if parent is None:
                self._outermost = name
                emit({"event": "phase", "name": name, "steps": steps})

        def step_complete(self, name: str, _step: int) -> bool:
            if name == self._outermost:
                emit({"event": "step"})
            return True

        def phase_finish(self, name: str) -> None:
            if name == self._outermost:
                self._outermost = ""

    return Monitor()
