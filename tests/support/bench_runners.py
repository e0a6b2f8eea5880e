"""Runners that fail while loading, each in its own way."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import NoReturn


def kill(path: Path, *, threads: int | None) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def exit(path: Path, *, threads: int | None) -> NoReturn:
    os._exit(7)


def defect(path: Path, *, threads: int | None) -> NoReturn:
    raise RuntimeError("a defect")
