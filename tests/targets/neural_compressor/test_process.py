"""Processes of the target end with the one that has started them, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

# Does its work in a process of its own, as PyTorch's compiler does.
_CHILD = """
import subprocess, sys
from pathlib import Path
from edgeq.targets.neural_compressor.process import end_with_parent

folder = Path(sys.argv[1])
end_with_parent(folder)
(folder / "half.o").write_text("half")
worker = subprocess.Popen(["sleep", "600"])
Path(sys.argv[2]).write_text(str(worker.pid))
worker.wait()
"""
_PARENT = """
import signal, sys
from pathlib import Path
from edgeq.targets.neural_compressor.process import run_module

# Processes in the background of a script ignore Ctrl-C, and so do those that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
run_module("child", sys.argv[1:], Path(sys.argv[1]), {})
"""


def _until(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + 60
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return holds()


def _runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_what_it_has_started_ends_with_it(tmp_path: Path, ending: signal.Signals) -> None:
    (tmp_path / "child.py").write_text(_CHILD)
    (working := tmp_path / "working").mkdir()
    told = tmp_path / "pid"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    command = [sys.executable, "-P", "-c", _PARENT, str(working), str(told)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as parent:
        assert _until(lambda: told.exists() and told.read_text() != "")
        worker = int(told.read_text())
        assert _runs(worker)
        parent.send_signal(ending)
    assert _until(lambda: not _runs(worker))
    # After Ctrl-C the parent is there to remove the folder.
    if ending == signal.SIGKILL:
        assert _until(lambda: not working.exists())
