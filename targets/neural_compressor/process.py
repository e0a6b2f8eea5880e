"""Python processes of their own for what may crash, sets global state, or must start afresh."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Settings of PyTorch's compiler in the user's environment would change what is compiled.
_FOREIGN = ("TORCHINDUCTOR_", "TORCH_", "AOT_INDUCTOR", "AOTINDUCTOR", "ONEDNN_", "DNNL_", "ATEN_CPU")


@dataclass(frozen=True)
class Ended:
    """How a process ended; ``why`` says in words why it failed, ``output`` is what it wrote."""

    failed: bool
    why: str
    output: str


def run_module(module: str, arguments: Sequence[str], working: Path, variables: Mapping[str, str]) -> Ended:
    """Run ``python -m module`` in the folder ``working`` with ``variables`` in its environment."""
    # -P and PYTHONPATH: the new process finds exactly the modules that this one does.
    command = [sys.executable, "-P", "-m", module, *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    environment = {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **variables}
    ended = subprocess.run(command, env=environment, cwd=working, capture_output=True, check=False)
    why = _why(ended) if ended.returncode else ""
    return Ended(bool(ended.returncode), why, ended.stdout.decode(errors="replace"))


def _why(ended: subprocess.CompletedProcess[bytes]) -> str:
    if ended.returncode < 0:
        name = signal.Signals(-ended.returncode).name
        return f"it was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    lines = ended.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1].rstrip(".") if lines else f"it exited with {ended.returncode}"
