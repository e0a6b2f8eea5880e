"""Python processes of edgeq's own, as the process that starts them sees them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence


def module_command(module: str, arguments: Sequence[str]) -> list[str]:
    """``python -m module``, which finds exactly the modules of this process with :func:`module_path`."""
    return [sys.executable, "-P", "-m", module, *arguments]


def module_path() -> Mapping[str, str]:
    """The variable that lets a new process find the modules that this one does."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def ended_by_signal(code: int) -> str:
    """``was ended by SIGSEGV``: a negative exit code in words."""
    name = signal.Signals(-code).name
    return f"was ended by {name}" + (" (the system may be out of memory)" if name == "SIGKILL" else "")


def why_it_failed(code: int, stderr: bytes) -> str:
    """The signal that ended a process, else the last line that it wrote, else its exit code."""
    if code < 0:
        return f"it {ended_by_signal(code)}"
    lines = stderr.decode(errors="replace").strip().splitlines()
    return lines[-1].rstrip(".") if lines else f"it exited with {code}"
