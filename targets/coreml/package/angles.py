"""Angles of rotary positions: float16 counts in steps of 1 radian from 1024 on, so they stay in float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_FUNCTIONS = frozenset({"sin", "cos"})


def angle_operations(program: Any) -> set[Any]:
    """Operations of the MIL ``program`` from integer positions and constants to sines and cosines.

    What reads other floats is no position: it computes in float16 already, and nothing is gained.
    """
    counted: set[Any] = set()
    for function in program.functions.values():
        for op in function.operations:
            if all(_counts(var, counted) for var in _inputs(op)):
                counted.add(op)
    found: set[Any] = set()
    waiting = [op for op in counted if op.op_type in _FUNCTIONS]
    while waiting:
        op = waiting.pop()
        if op in found:
            continue
        found.add(op)
        waiting += [var.op for var in _inputs(op) if var.op in counted]
    return found


def _counts(var: Any, counted: set[Any]) -> bool:
    if not var.is_tensor_or_scalar_of(dtype="fp32"):
        return True
    return var.op is not None and (var.op.op_type == "const" or var.op in counted)


def _inputs(op: Any) -> Iterator[Any]:
    for bound in op.inputs.values():
        yield from bound if isinstance(bound, (list, tuple)) else [bound]
