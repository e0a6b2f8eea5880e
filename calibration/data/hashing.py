"""sha256 of data, streamed: what the manifest stores to say which data a result belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from edgeq.calibration.types import Array

_BLOCK = 1 << 20


def file_sha256(path: Path) -> str:
    """sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_sha256(root: Path, files: Iterable[Path]) -> str:
    """sha256 over the sorted relative names and contents of ``files`` under ``root``.

    Name and content hashes have fixed places, so no two sets of files give the same bytes.
    """
    digest = hashlib.sha256()
    for name, path in sorted((_relative(path, root), path) for path in files):
        digest.update(hashlib.sha256(name.encode()).digest())
        digest.update(bytes.fromhex(file_sha256(path)))
    return digest.hexdigest()


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def arrays_sha256(arrays: Mapping[str, Array]) -> str:
    """sha256 over names, dtypes, shapes and bytes of arrays, in sorted order of the names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        rows = max(1, _BLOCK // max(1, array.nbytes // max(1, len(array)))) if array.ndim else 1
        for start in range(0, len(array) if array.ndim else 1, rows):
            part = array[start : start + rows] if array.ndim else array
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()
