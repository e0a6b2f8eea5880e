"""A worker process as its parent sees it: requests in, events out, and why it died if it did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from edgeq.processes import ended_by_signal
from edgeq.targets.tensorrt.backend import said
from edgeq.targets.tensorrt.backend.request import BackendName, BuildRequest

_GRACE = 10.0  # seconds that a process with closed pipes may take to end


class WorkerDiedError(Exception):
    """The process ended, or was ended, before it answered. ``how`` says so in words; ``said`` is its last."""

    def __init__(self, how: str, said: str) -> None:
        super().__init__(how)
        self.how = how
        self.said = said


class Worker:
    """A context: the process lives as long, and not a moment longer."""

    def __init__(self, backend: BackendName, folder: Path | None = None) -> None:
        """``folder`` is the working folder, which paths of requests may be relative to."""
        self._backend = backend
        self._working_folder = folder

    def __enter__(self) -> Worker:
        self._folder = TemporaryDirectory(prefix="edgeq-")
        folder = Path(self._folder.name)
        self._said, self._stderr = folder / "said", folder / "stderr"
        said.prepare(self._said)
        self._process = self._start()
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        return self._process.pid

    def events(self, request: BuildRequest, timeout: float | None) -> Iterator[dict[str, Any]]:
        """Send ``request`` and yield what comes back, up to the ``report`` or ``failed`` that ends it.

        Raises:
            WorkerDiedError: it crashed, or took more than ``timeout`` seconds and was killed.
        """
        self._send(request)
        end = None if timeout is None else monotonic() + timeout
        while True:
            event = json.loads(self._line(end, timeout))
            yield event
            if event["event"] in ("report", "failed"):
                return

    def _start(self) -> subprocess.Popen[str]:
        module = "edgeq.targets.tensorrt.backend.worker"
        command = [sys.executable, "-P", "-m", module, self._backend, os.fspath(self._said)]
        with self._stderr.open("wb") as stderr:
            return subprocess.Popen(
                command,
                cwd=self._working_folder,
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                encoding="utf-8",
            )

    def _send(self, request: BuildRequest) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(_seen_from(request, self._working_folder).model_dump_json() + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _line(self, end: float | None, timeout: float | None) -> str:
        try:
            line = self._lines.get(timeout=None if end is None else max(end - monotonic(), 0))
        except Empty:
            raise WorkerDiedError(
                f"took more than {timeout:g} s and was ended", said.read(self._said)
            ) from None
        if line is None:
            raise self._died()
        return line

    def _died(self) -> WorkerDiedError:
        code = self._process.wait(_GRACE)
        # Only an exception of Python has a last line worth more than the compiler's.
        last = (self._last_line(), said.read(self._said))
        return WorkerDiedError(_how(code), next(filter(None, last if code > 0 else reversed(last)), ""))

    def _last_line(self) -> str:
        lines = self._stderr.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else ""


def _seen_from(request: BuildRequest, folder: Path | None) -> BuildRequest:
    """``request`` with the paths that a process working in ``folder`` needs, short where they lie in it."""
    if folder is None:
        return request
    paths = {name: getattr(request, name) for name in ("model", "engine", "timing_cache")}
    base = folder.resolve()
    absolute = {name: path.resolve() for name, path in paths.items() if path is not None}
    seen = {name: p.relative_to(base) if p.is_relative_to(base) else p for name, p in absolute.items()}
    return request.model_copy(update=seen)


def _environment() -> dict[str, str]:
    """What this process has; without what would make equal builds lie at other addresses (addresses.py)."""
    paths = os.pathsep.join(os.path.abspath(path) for path in filter(None, sys.path))  # noqa: PTH100
    inherited = {name: text for name, text in os.environ.items() if name not in ("PWD", "OLDPWD")}
    return {**inherited, "PYTHONPATH": paths, "PYTHONHASHSEED": "0"}


def _how(code: int) -> str:
    return f"ended with the code {code}" if code >= 0 else ended_by_signal(code)
