"""Measurements in processes of their own: one JSON line each comes back, or a failure in words.

Needs only the standard library: peers run it in virtual environments that have nothing else of edgeq's.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def fresh(command: Sequence[str], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The last line that ``command`` prints, as JSON; ``error`` with its last words when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode == 0:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    return failure(done.stderr, done.returncode)


def failure(stderr: str, status: int) -> dict[str, Any]:
    """The last words of a process that failed."""
    said = stderr.strip().splitlines() or [f"exit status {status}"]
    return {"error": said[-1][:300].replace("|", "/")}


def peak_mib() -> float:
    """High-water mark of this process (VmHWM starts anew with exec, unlike ``ru_maxrss``)."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def cpu_seconds() -> float:
    """Of this process and of the ended ones that it waited for (compilers)."""
    return sum(os.times()[:4])
