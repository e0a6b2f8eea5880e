"""The file that saves TensorRT from timing the same kernels again (TensorRT for RTX times none)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from edgeq.targets.tensorrt.backend.parts import part


def use_timing_cache(config: Any, path: Path) -> str:
    """Give ``config`` the times of ``path``, or an empty cache; returns why a file was not used."""
    stored = path.read_bytes() if path.is_file() else b""
    if config.set_timing_cache(config.create_timing_cache(stored), False):
        return ""
    # It came from another version of TensorRT or from another GPU.
    config.set_timing_cache(config.create_timing_cache(b""), False)
    return f"The timing cache {path} is of another TensorRT or another GPU and was replaced."


def store_timing_cache(config: Any, path: Path) -> None:
    """Write what ``config`` knows after the build, all or nothing."""
    unfinished = part(path, os.getpid())
    try:
        unfinished.write_bytes(config.get_timing_cache().serialize())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
