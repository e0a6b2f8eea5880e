"""The kernels that TensorRT for RTX compiles on the user's GPU, kept for the next time.

They lie in the user's cache folder, never in the artefact: its files are proved by their SHA-256. The
folder can be deleted at any time. The runtime itself checks that a cache fits the GPU and its version.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


def cache_path(engine: Path, version: str, sm: int) -> Path:
    """Where the kernels of ``engine`` (by its content) are kept for one runtime version and GPU."""
    with engine.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:32]
    return _cache_folder() / f"{digest}-{version}-sm{sm}.cache"


def restore(cache: Any, path: Path) -> None:
    """Fill an ``IRuntimeCache`` with what was kept; one that does not fit is made anew."""
    with suppress(OSError):
        if not cache.deserialize(path.read_bytes()):
            cache.reset()


def keep(cache: Any, path: Path) -> None:
    """Write an ``IRuntimeCache``; a folder that cannot be written costs the next start some seconds."""
    content = bytes(cache.serialize())
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "edgeq" / "tensorrt-rtx"
