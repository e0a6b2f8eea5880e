"""Resident memory of this process and its peak."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # man 5 proc: resets VmHWM to the current resident set size


def reset_peak() -> tuple[int, int]:
    """The resident set now and its peak so far, in bytes; from here on the peak counts anew where it can."""
    peak = peak_bytes()
    with suppress(OSError):
        _CLEAR_REFS.write_text(_RESET_PEAK, encoding="ascii")
    return _status("VmRSS") or peak, peak


def peak_bytes() -> int:
    """The highest resident set size of this process."""
    # ru_maxrss counts from the parent's size at the fork on Linux, so /proc comes first.
    from_status = _status("VmHWM")
    if from_status is not None:
        return from_status
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024


def _status(field: str) -> int | None:
    """A field of /proc/self/status in bytes (it says kB and means KiB); None where there is no /proc."""
    if not _STATUS.is_file():
        return None
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return None
