"""Comparing two packages operation by operation: building is deterministic, so a second one must be equal."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.targets.coreml.interpreter.program import read_package
from edgeq.targets.coreml.interpreter.structure import Operation, Value


def first_difference(package: Path, wanted: Path) -> str:
    """In words, where ``package`` first differs from ``wanted``; empty when they hold the same program."""
    ours = list(read_package(package).main.block.walk())
    theirs = list(read_package(wanted).main.block.walk())
    for found, expected in zip_longest(ours, theirs):
        difference = _difference(found, expected)
        if difference:
            return difference
    return ""


def _difference(found: Operation | None, expected: Operation | None) -> str:
    if found is None or expected is None:
        more, where = (found, "has one more") if expected is None else (expected, "lacks the")
        assert more is not None
        return f"the package {where} operation {more.type} {more.name!r}"
    name = expected.outputs[0].name if expected.outputs else expected.name
    if found.type != expected.type or found.outputs != expected.outputs:
        return f"the package has {found.type} {found.name!r} where the model has {expected.type} {name!r}"
    for kind in ("inputs", "attributes"):
        ours, theirs = getattr(found, kind), getattr(expected, kind)
        if ours.keys() != theirs.keys():
            return f"{expected.type} {name!r} has other {kind}"
        for key in theirs:
            if not _same_argument(ours[key], theirs[key]):
                values = f"{_text(ours[key])}, not {_text(theirs[key])}"
                return f"{key} of {expected.type} {name!r} is another: {values}"
    return ""


def _same_argument(first: Any, second: Any) -> bool:
    if isinstance(first, tuple):
        return len(first) == len(second) and all(map(_same_argument, first, second))
    if isinstance(first, Value) and isinstance(second, Value):
        return first.type == second.type and _same_values(first.decode(), second.decode())
    return bool(first == second) if type(first) is type(second) else False


def _same_values(first: Any, second: Any) -> bool:
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return (
            first.dtype == second.dtype
            and first.shape == second.shape
            and first.tobytes() == second.tobytes()
        )
    return bool(first == second)


def _text(argument: Any) -> str:
    value = argument[0] if isinstance(argument, tuple) and argument else argument
    if isinstance(value, Value):
        decoded = value.decode()
        if isinstance(decoded, np.ndarray):
            return f"{decoded.item():.6g}" if decoded.size == 1 else f"{decoded.dtype} values"
        return str(decoded)
    return str(value)
