"""Calls the interpreter's kernels the way its engine does."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np

from edgeq.targets.coreml.interpreter.call import Call
from edgeq.targets.coreml.interpreter.table import KERNELS


def mil(op_type: str, *, opset: int = 18, **inputs: Any) -> Any:
    """The op's result; parameters that are None are left out of the call, lists become int32 vectors."""
    arrays = {name: _value(value) for name, value in inputs.items() if value is not None}
    return KERNELS[op_type](Call(op_type, f"the_{op_type}", arrays, (), opset))


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def grid(*values: Iterable[Any]) -> list[tuple[Any, ...]]:
    """All combinations, for pytest's parametrize."""
    return list(itertools.product(*values))


def _value(value: Any) -> Any:
    if isinstance(value, (str, np.ndarray)):
        return value
    if isinstance(value, (list, tuple)):
        return list(value) if isinstance(value[0], np.ndarray) else np.array(value, np.int32)
    return np.array(value, np.float32 if isinstance(value, float) else None)
