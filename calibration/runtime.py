"""ONNX Runtime's exceptions, and their messages as one sentence."""

from __future__ import annotations

import re
from typing import Final

from onnxruntime.capi import onnxruntime_pybind11_state as _state

RUNTIME_ERRORS: Final[tuple[type[Exception], ...]] = (
    *(kind for kind in vars(_state).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    OSError,
    ValueError,
    TypeError,
)
"""What ONNX Runtime raises for a bad model or bad inputs (its own classes share no base but Exception)."""

_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")


def one_sentence(error: BaseException) -> str:
    """The message without code, source location and further lines, ending in a period."""
    text = _PREFIX.sub("", str(error)).strip().splitlines()
    line = next((line.strip() for line in text if line.strip()), type(error).__name__)
    return line.rstrip(". ") + "."
