"""Resident memory of this process and its children, and its peak."""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_PAGE = resource.getpagesize()
# How often children are looked at: they live for longer than that where they need much.
LOOK_SECONDS = 0.05
_RESET_PEAK = "5"  # man 5 proc: resets VmHWM to the current resident set size


def reset_peak() -> tuple[int, int]:
    """The resident set now and its peak so far, in bytes; from here on the peak counts anew where it can."""
    peak = peak_bytes()
    with suppress(OSError):
        _CLEAR_REFS.write_text(_RESET_PEAK, encoding="ascii")
    return _status("VmRSS") or peak, peak


@dataclass
class Watched:
    """Bytes resident ``before`` a block, and its ``peak`` when it has ended; None where that is not known.

    The peak is the largest of this process alone, or together with its children (compilers that a build
    runs), which are looked at every :data:`LOOK_SECONDS` where there is a /proc.
    """

    before: int
    peak: int | None = None

    @property
    def added(self) -> int | None:
        """What the block added at most."""
        return None if self.peak is None else max(self.peak - self.before, 0)


@contextmanager
def watched_peak() -> Iterator[Watched]:
    """Watch the resident set of this process and its children while the block runs."""
    before, earlier = reset_peak()
    watched = Watched(before)
    ended = threading.Event()
    together = [0]
    thread = threading.Thread(target=_look_at_children, args=(ended, together), daemon=True)
    thread.start()
    try:
        yield watched
    finally:
        ended.set()
        thread.join()
        alone = peak_bytes()
        peak = max(alone, together[0])
        # Where the peak cannot be reset, one that did not grow is that of something before the block.
        watched.peak = None if peak == earlier > before else peak


def _look_at_children(ended: threading.Event, largest: list[int]) -> None:
    while not ended.wait(LOOK_SECONDS):
        children = sum(_resident(pid) for pid in _descendants(os.getpid()))
        if children:
            largest[0] = max(largest[0], children + (_status("VmRSS") or 0))


def _descendants(pid: int) -> Iterator[int]:
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        # A process may end while it is looked at.
        with suppress(OSError):
            for child in map(int, listed.read_text(encoding="ascii").split()):
                yield child
                yield from _descendants(child)


def _resident(pid: int) -> int:
    """Resident bytes of a process: the second number of /proc/PID/statm, in pages; 0 when it has ended."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE
    return 0


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
