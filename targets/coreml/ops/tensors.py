"""Constants in a tensor's dtype and shapes with dynamic sizes: what several families need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.lowering import known_dimension
from edgeq.targets.coreml.frontend.node import Var
from edgeq.targets.coreml.toolkit import builder, mil_types

# A size: an int, or an int32 variable of shape [1] when it is only known at run time.
Size = Any


def like(variable: Var, value: Any) -> Array:
    """``value`` as numpy constant in the dtype of ``variable``."""
    with np.errstate(over="ignore"):  # beyond float16: infinite, as in the model
        return np.asarray(value, dtype=mil_types().nptype_from_builtin(variable.dtype))


def scalar(variable: Var, value: float) -> Any:
    """``value`` as numpy scalar in the dtype of ``variable`` (for parameters like ``epsilon``)."""
    return like(variable, value)[()]


def sizes(variable: Var) -> tuple[int | None, ...]:
    """Shape of a MIL variable, None for what is only known at run time."""
    return tuple(known_dimension(size) for size in variable.shape)


def size(variable: Var, axis: int) -> Size:
    """The size of one axis: an int where it is known, else an int32 variable of shape [1]."""
    known = known_dimension(variable.shape[axis])
    if known is not None:
        return known
    mb, start = builder(), axis % variable.rank
    return mb.slice_by_index(x=mb.shape(x=variable), begin=[start], end=[start + 1])


def shape_of(parts: Sequence[Size]) -> Any:
    """A shape of ``parts``: numpy where all are known, else an int32 variable."""
    if all(isinstance(part, int) for part in parts):
        return np.array(parts, np.int32)
    columns = [np.array([part], np.int32) if isinstance(part, int) else part for part in parts]
    return builder().concat(values=columns, axis=0)


def reshape(x: Var, parts: Sequence[Size]) -> Var:
    """``x`` in the shape ``parts``; one size known at run time only is left to MIL to infer."""
    unknown = [part for part in parts if not isinstance(part, int)]
    known = [part for part in parts if isinstance(part, int)]
    if len(unknown) != 1 or 0 in known:
        return builder().reshape(x=x, shape=shape_of(parts))
    return builder().reshape(x=x, shape=[part if isinstance(part, int) else -1 for part in parts])


def product(parts: Sequence[Size]) -> Size:
    """Product of sizes."""
    known = math.prod(part for part in parts if isinstance(part, int))
    unknown = [part for part in parts if not isinstance(part, int)]
    if not unknown:
        return known
    total = unknown[0]
    for part in unknown[1:]:
        total = builder().mul(x=total, y=part)
    return total if known == 1 else builder().mul(x=total, y=np.array([known], np.int32))
