"""Attention masks of -3.4e38 for float16: numbers that it has, so that a query without keys stays finite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.compiler.quantize.masks import HIDDEN
from edgeq.targets.coreml.toolkit import builder

# Constants from here on stand for infinity.
INFINITE = 1e38
_MOVES = frozenset(
    {
        "cast", "concat", "expand_dims", "gather", "identity", "reshape", "slice_by_index", "slice_by_size",
        "split", "squeeze", "stack", "tile", "transpose",
    }
)  # fmt: skip
_ARITHMETIC = frozenset({"add", "mul", "sub"})
_MASKS = {"add": ("x", "y"), "mul": ("x", "y"), "select": ("a", "b"), "sub": ("x",)}


def soften_masks(program: Any) -> None:
    """Replace constants below -1e38 by -3e4 in the MIL ``program`` where only softmax sees the difference.

    As -inf, which float16 makes of them, they give NaN for a query whose keys are all hidden (where float32
    gives the mean of the values) and for ``0 * -inf`` in masks made by a product.
    """
    for function in program.functions.values():
        for op in list(function.operations):
            for name in _MASKS.get(op.op_type, ()):
                _soften(op, name)


def _soften(op: Any, name: str) -> None:
    values = _constant(op.inputs[name])
    if values is None or values.dtype != np.float32:
        return
    hidden = np.isfinite(values) & (values < -INFINITE)
    if not hidden.any() or not _is_mask(op, name) or not _only_softmax(op):
        return
    with op.enclosing_block:
        softer = builder().const(val=np.where(hidden, np.float32(HIDDEN), values), before_op=op)
    op.set_inputs(**{name: softer})


def _is_mask(op: Any, name: str) -> bool:
    """Whether ``op`` puts its constant beside scores; a product does so when the rest counts in ones."""
    if op.op_type != "mul":
        return True
    return _is_whole(op.inputs["y" if name == "x" else "x"])


def _is_whole(var: Any) -> bool:
    """Whether all numbers are integers: casts of integers, and sums and products of such."""
    values = _constant(var)
    if values is not None:
        return bool(np.all(values == np.round(values)))
    if not var.is_tensor_or_scalar_of(dtype="fp32"):
        return True
    if var.op is None or var.op.op_type not in _MOVES | _ARITHMETIC:
        return False
    return all(_is_whole(source) for source in _data(var.op))


def _only_softmax(op: Any) -> bool:
    """Whether everything that reads the result, directly or moved or added to scores, is a softmax."""
    waiting, seen = list(op.outputs), set()
    while waiting:
        var = waiting.pop()
        if var in seen:
            continue
        seen.add(var)
        if var in var.op.enclosing_block.outputs or not var.child_ops:
            return False
        for reader in var.child_ops:
            if reader.op_type in _MOVES or any(reader.inputs[name] is var for name in _sums(reader)):
                waiting += reader.outputs
            elif not _ends(reader, var):
                return False
    return True


def _sums(reader: Any) -> tuple[str, ...]:
    """The parameters whose infinity is the result's."""
    return () if reader.op_type == "mul" else _MASKS.get(reader.op_type, ())


def _ends(reader: Any, var: Any) -> bool:
    if reader.op_type == "scaled_dot_product_attention":
        return reader.inputs.get("attn_mask") is var
    return bool(reader.op_type == "softmax")


def _data(op: Any) -> Iterator[Any]:
    """What an operation computes with, without axes, shapes and types."""
    for name in ("x", "y", "values"):
        bound = op.inputs.get(name)
        yield from bound if isinstance(bound, (list, tuple)) else [] if bound is None else [bound]


def _constant(var: Any) -> Array | None:
    if isinstance(var, (list, tuple)) or var.op is None or var.op.op_type != "const":
        return None
    value = var.op.val.val
    return None if isinstance(value, str) else np.asarray(value)
