"""K- and IQ-quants: llama.cpp rounds a file of floats, with an importance matrix where there is one."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.compiler.weights.spec import Floats
from edgeq.errors import TargetError
from edgeq.machine import usable_cores
from edgeq.targets.gguf.llama import library, silence
from edgeq.targets.gguf.native_errors import native_errors
from edgeq.targets.gguf.types import FileType


def requantize(
    source: Path,
    path: Path,
    file_type: FileType,
    importance: Mapping[str, Floats],
    types: Mapping[str, str],
    *,
    threads: int | None,
) -> None:
    """Write ``path`` from the floats in ``source``.

    ``importance``: tensor → mean squares of its input channels; ``types``: tensor → another type than
    llama.cpp's mix for this file gives it.

    Raises:
        MissingExtraError: llama-cpp-python is not installed.
        TargetError: llama.cpp refuses.
    """
    lib = library()
    parameters = lib.llama_model_quantize_default_params()
    parameters.ftype = file_type.file_type
    parameters.nthread = threads or usable_cores()
    # Both must outlive the call: the parameters only point to them.
    matrix = _matrix(lib, importance)
    overrides = _overrides(lib, types)
    parameters.imatrix = matrix
    parameters.tt_overrides = overrides
    with silence() as errors, native_errors() as said:
        status = lib.llama_model_quantize(str(source).encode(), str(path).encode(), ctypes.byref(parameters))
    if status != 0:
        why = "; ".join(dict.fromkeys(map(_words, [*errors[:1], *said[:1]]))) or f"status {status}"
        fix = "Choose another -O type."
        if "importance matrix" in why and not importance:
            fix = "Give a text with --calibration, or choose another -O type."
        raise TargetError(f"llama.cpp cannot make {file_type.name}: {why}.", fix=fix)


def _words(message: str) -> str:
    """A message of several lines in one, without the lines that only underline."""
    return " ".join(line.strip() for line in message.splitlines() if line.strip(" =\t"))


def _matrix(lib: Any, importance: Mapping[str, Floats]) -> Any:
    """A list that ends with an entry of no name; None without data."""
    if not importance:
        return None
    entries = (lib.llama_model_imatrix_data * (len(importance) + 1))()
    for entry, (name, values) in zip(entries, importance.items(), strict=False):
        kept = np.ascontiguousarray(values, np.float32)
        data = (ctypes.c_float * kept.size).from_buffer_copy(kept.tobytes())
        entry.name, entry.size = name.encode(), kept.size
        entry.data = ctypes.cast(data, ctypes.POINTER(ctypes.c_float))
    return entries


def _overrides(lib: Any, types: Mapping[str, str]) -> Any:
    """A list of regular expressions that ends with one of no pattern; None without entries."""
    import gguf

    if not types:
        return None
    entries = (lib.llama_model_tensor_override * (len(types) + 1))()
    for entry, (name, kind) in zip(entries, types.items(), strict=False):
        entry.pattern = f"^{re.escape(name)}$".encode()
        entry.type = gguf.GGMLQuantizationType[kind].value
    return entries
