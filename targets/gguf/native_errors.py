"""What ggml writes to C's stderr by itself, past llama.cpp's log."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def native_errors() -> Iterator[list[str]]:
    """Collect the lines in a list, which is filled at the end; Python's own stderr goes on as it is.

    The file descriptor is left alone, which progress is shown on meanwhile: glibc's variable ``stderr``
    names another stream. Other C libraries have no such variable, or a constant: nothing is collected.
    """
    said: list[str] = []
    if platform.libc_ver()[0] != "glibc":
        yield said
        return
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    libc.fclose.argtypes = [ctypes.c_void_p]
    stream = ctypes.c_void_p.in_dll(libc, "stderr")
    before = stream.value
    with tempfile.NamedTemporaryFile(prefix="edgeq-stderr-") as file:
        other = libc.fopen(file.name.encode(), b"w")
        if not other:
            yield said
            return
        stream.value = other
        try:
            yield said
        finally:
            stream.value = before
            libc.fclose(other)
            said += Path(file.name).read_text(encoding="utf-8", errors="replace").splitlines()
