"""Python processes of their own for what may crash, sets global state, or must start afresh."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeq.processes import module_command, module_path, why_it_failed

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
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    environment = {**kept, **module_path(), **variables}
    ended = _run(module_command(module, arguments), working, environment)
    why = why_it_failed(ended.returncode, ended.stderr) if ended.returncode else ""
    return Ended(bool(ended.returncode), why, ended.stdout.decode(errors="replace"))


def end_with_parent(working: Path) -> None:
    """In a process that :func:`run_module` has started: end it, and its own, as soon as the parent is gone.

    A parent that was killed can no longer do so, nor remove ``working``.
    """
    # The one that ends the C++ compiler, which removes its files then, must not end this process.
    signal.signal(signal.SIGTERM, lambda *_: None)
    threading.Thread(target=_await_parent, args=(working,), daemon=True).start()


def _await_parent(working: Path) -> None:
    # Nothing is ever written: the read returns when the parent's end of the pipe is closed.
    os.read(sys.stdin.fileno(), 1)
    # Should the process end by itself meanwhile.
    atexit.register(shutil.rmtree, working, ignore_errors=True)
    os.killpg(0, signal.SIGTERM)
    shutil.rmtree(working, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


def _run(
    command: Sequence[str], working: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[bytes]:
    """Run ``command`` in a process group of its own, which is ended when this is interrupted."""
    alive, parent = os.pipe()
    try:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=working,
            stdin=alive,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except BaseException:
        os.close(parent)
        raise
    finally:
        os.close(alive)
    try:
        output, errors = process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    finally:
        os.close(parent)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)
