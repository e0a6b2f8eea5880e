"""What may stand in a ``.pt2`` archive that is loaded here.

``torch.export.load`` falls back to unrestricted unpickling, loads compiled libraries and evaluates shape
expressions that it finds in the archive. A model file should not be able to run code: these ways are shut.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeq.errors import ModelError

# Shape expressions as torch.export writes them (sympy's srepr), which sympy evaluates as Python: classes may
# be called (they begin with a capital letter), functions may not; strings are plain names; no attributes, no
# subscripts, no double underscores.
_EXPRESSION = re.compile(
    r"(?!.*__)(?:\b[A-Z]\w*\b|\b[a-z]\w*\b(?!\s*\()|'[A-Za-z]\w*'|\b\d+(?:\.\d+)?\b|[-+*/%(),<>=!&|~ ])*",
    re.ASCII,
)


def checked(path: Path) -> None:
    """Refuse anything but a plain exported program: graph, tensors, sample inputs.

    Raises:
        ModelError: not there, not an archive of ``torch.export.save``, or it holds code or pickled objects.
    """
    if not path.is_file():
        raise ModelError(f"The exported program {path} does not exist.")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_names(path, archive.namelist())
            for name in archive.namelist():
                if name.endswith(".json") or "models/" in name:
                    _check_json(path, name, json.loads(archive.read(name)))
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise ModelError(
            f"{path} is not an exported program, or it is truncated.",
            fix="Write it with torch.export.save(torch.export.export(module, args), path).",
        ) from error


def _check_names(path: Path, names: list[str]) -> None:
    if len(set(names)) != len(names):
        raise ModelError(f"{path} holds two files of one name, so it was not written by torch.export.save.")
    if any("aotinductor/" in name for name in names):
        raise ModelError(
            f"{path} holds compiled code (AOTInductor), which is not loaded from a model file.",
            fix="Write it with torch.export.save instead of torch._inductor.aoti_compile_and_package.",
        )
    if not any("models/" in name for name in names):
        raise ModelError(
            f"{path} holds no exported program, or it is truncated.",
            fix="Write it with torch.export.save of PyTorch 2.9 or later, not with torch.save.",
        )


def _check_json(path: Path, name: str, content: Any) -> None:
    for key, value in _strings(content):
        if key == "expr_str" and not _EXPRESSION.fullmatch(value):
            raise ModelError(
                f"{path} has the shape expression {value[:60]!r} in {name}, which is not allowed."
            )
        if key == "path_name" and value.startswith(("custom_obj_", "opaque_obj_")):
            raise ModelError(
                f"{path} holds a pickled object ({value}), which is not loaded from a model file.",
                fix="Export the module without custom script objects.",
            )


def _strings(content: Any) -> Iterator[tuple[str, str]]:
    if isinstance(content, dict):
        for key, value in content.items():
            if isinstance(value, str):
                yield key, value
            else:
                yield from _strings(value)
    elif isinstance(content, list):
        for value in content:
            yield from _strings(value)


@contextlib.contextmanager
def weights_only() -> Iterator[None]:
    """Make every ``torch.load`` inside restricted to tensors, whatever its caller asks for."""
    import torch

    original = torch.load

    @functools.wraps(original)
    def restricted(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **{**kwargs, "weights_only": True})

    torch.load = restricted
    try:
        yield
    finally:
        torch.load = original
