"""Who may attend to whom: boolean masks, additive biases, and rows that may attend to nobody.

Masks are numpy arrays where they are known at compile time, MIL variables otherwise; both broadcast to
[batch, heads, queries, keys].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.lowering import mil_type_name
from edgeq.targets.coreml.frontend.node import Var
from edgeq.targets.coreml.ops.tensors import Size, like, scalar
from edgeq.targets.coreml.toolkit import builder

# A numpy array or a MIL variable.
Operand = Any

_NUMPY: dict[str, Callable[[Any, Any], Array]] = {
    "add": np.add,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "logical_and": np.logical_and,
    "sub": np.subtract,
}


def combine(operation: str, first: Operand, second: Operand) -> Operand:
    """The elementwise MIL ``operation``, at compile time where both operands are known."""
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return _NUMPY[operation](first, second)
    return getattr(builder(), operation)(x=first, y=second)


def both(first: Operand | None, second: Operand | None) -> Operand | None:
    """Both masks at once; None allows everything."""
    if first is None or second is None:
        return second if first is None else first
    return combine("logical_and", first, second)


def counting(count: Size) -> Operand:
    """0, 1, … count - 1 as int32 vector."""
    if isinstance(count, int):
        return np.arange(count, dtype=np.int32)
    return builder().range_1d(start=0, end=builder().squeeze(x=count, axes=[0]), step=1)


def column(vector: Operand) -> Operand:
    """A vector as [n, 1]."""
    return vector[:, None] if isinstance(vector, np.ndarray) else builder().expand_dims(x=vector, axes=[1])


def window(queries: Size, keys: Size, offset: Operand, left: int | None = None) -> Operand:
    """Keys up to a query's position (its index + ``offset``), from ``left`` keys before it on."""
    columns, positions = counting(keys), combine("add", column(counting(queries)), offset)
    causal = combine("less_equal", columns, positions)
    if left is None:
        return causal
    first = combine("sub", positions, np.array(left, np.int32))
    return combine("logical_and", causal, combine("greater_equal", columns, first))


@dataclass(frozen=True)
class Mask:
    """``allowed`` (bool) and ``bias`` (float, added to the scores); None: no restriction.

    ``full_rows``: every query is known to have a key that it may attend to.
    """

    allowed: Operand | None = None
    bias: Var | None = None
    full_rows: bool = False

    @property
    def empty(self) -> bool:
        """Whether nothing is masked."""
        return self.allowed is None and self.bias is None


def additive(mask: Mask, scores: Var) -> Var:
    """The whole mask as bias of the scores' dtype, minus infinity where attending is not allowed."""
    if mask.allowed is None:
        return mask.bias
    bias = _zero_or_infinite(mask.allowed, scores)
    return bias if mask.bias is None else builder().add(x=mask.bias, y=bias)


def _zero_or_infinite(allowed: Operand, scores: Var) -> Operand:
    if isinstance(allowed, np.ndarray):
        return np.where(allowed, like(scores, 0), like(scores, -np.inf))
    return builder().select(cond=allowed, a=_zeros(allowed, scores), b=scalar(scores, -np.inf))


def _zeros(shaped: Var, scores: Var) -> Var:
    """Zeros of the shape of ``shaped``: MIL's select takes its shape from its values, not its condition."""
    return builder().fill(shape=builder().shape(x=shaped), value=scalar(scores, 0.0))


def guarded(mask: Mask, scores: Var) -> tuple[Mask, Operand | None]:
    """The mask with empty rows opened, and the factor (0 for those rows) that their results take.

    A softmax over nothing but minus infinity is NaN, where ONNX's Attention gives zeros.
    """
    if mask.bias is not None:
        bias = additive(mask, scores)
        full = mask.full_rows or (bias.val is not None and np.any(bias.val > -np.inf, axis=-1).all())
        return (Mask(bias=bias), None) if full else _guarded_bias(bias, scores)
    if mask.allowed is None or mask.full_rows:
        return mask, None
    if isinstance(mask.allowed, np.ndarray):
        alive = mask.allowed.any(axis=-1, keepdims=True)
        return Mask(mask.allowed | ~alive), None if alive.all() else like(scores, alive)
    mb = builder()
    alive = _any(mask.allowed, scores)
    dead = mb.equal(x=alive, y=scalar(scores, 0.0))
    return Mask(mb.logical_or(x=mask.allowed, y=dead)), alive


def _guarded_bias(bias: Var, scores: Var) -> tuple[Mask, Var]:
    mb = builder()
    opened = mb.greater(x=bias, y=scalar(scores, -np.inf))
    alive = _any(opened, scores)
    dead = mb.equal(x=alive, y=scalar(scores, 0.0))
    kept = mb.logical_or(x=opened, y=mb.logical_not(x=dead))
    return Mask(bias=mb.select(cond=kept, a=bias, b=scalar(scores, 0.0))), alive


def _any(allowed: Var, scores: Var) -> Var:
    """1 for rows with an allowed key, 0 for others, the last axis kept as 1."""
    numbers = builder().cast(x=allowed, dtype=mil_type_name(scores))
    return builder().reduce_max(x=numbers, axes=[-1], keep_dims=True)


def padded_to(mask: Var, keys: int, fill: Any) -> Var:
    """A mask of static shape that is too short along its last axis, ``fill`` after it."""
    parts = [*(int(size) for size in mask.shape[:-1]), keys - int(mask.shape[-1])]
    return builder().concat(values=[mask, np.full(parts, fill)], axis=-1)
