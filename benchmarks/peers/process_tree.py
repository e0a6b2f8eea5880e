"""A measurement in a process of its own whose helpers (a C++ compiler) count in its memory too."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fresh import failure

_EVERY_SECONDS = 0.25


def fresh_tree(
    command: Sequence[str], environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> dict[str, Any]:
    """As ``fresh.fresh``, with ``tree_mib``: the peak of the process and all its descendants together.

    Shared pages count once (PSS); what lives for less than a quarter of a second may be missed.
    """
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as wrong:
        process = subprocess.Popen(command, stdout=said, stderr=wrong, env=environment, cwd=cwd)
        peak = 0
        while process.poll() is None:
            peak = max(peak, sum(map(_pss, _family(process.pid))))
            time.sleep(_EVERY_SECONDS)
        said.seek(0)
        wrong.seek(0)
        if process.returncode != 0:
            return failure(wrong.read(), process.returncode)
        return {**json.loads(said.read().splitlines()[-1]), "tree_mib": peak / 1024}


def _family(pid: int) -> Iterator[int]:
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _family(int(child))


def _pss(pid: int) -> int:
    """Proportional set size in KiB; 0 when the process is gone."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return 0
