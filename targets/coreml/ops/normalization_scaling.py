"""Norms that stay in float16's range: the input is divided by its largest magnitude before it is squared."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgeq.targets.coreml.frontend.lowering import mil_type_name
from edgeq.targets.coreml.frontend.node import Var
from edgeq.targets.coreml.ops.tensors import scalar
from edgeq.targets.coreml.toolkit import builder

# The smallest normal float16: what the largest magnitude is taken for when it is smaller.
_SMALLEST = 2.0**-14


def scaled(x: Var, axes: Sequence[int], floor: float) -> tuple[Var, Var]:
    """``x / m`` and ``m``, the largest magnitude along ``axes`` (kept as 1), at least ``floor``."""
    mb = builder()
    largest = mb.reduce_max(x=mb.abs(x=x), axes=list(axes), keep_dims=True)
    largest = mb.maximum(x=largest, y=scalar(x, floor))
    return mb.real_div(x=x, y=largest), largest


def root_mean_square(x: Var, axes: Sequence[int], epsilon: float) -> tuple[Var, Var]:
    """``x / sqrt(mean(x²) + epsilon)`` and ``1 / sqrt(mean(x²) + epsilon)``.

    With m = max(|x|, sqrt(epsilon)), all of x/m, sqrt(epsilon)/m and their squares are at most 1.
    """
    mb, root = builder(), math.sqrt(epsilon)
    part, largest = scaled(x, axes, max(root, _SMALLEST))
    squares = mb.reduce_mean(x=mb.square(x=part), axes=list(axes), keep_dims=True)
    offset = mb.square(x=mb.real_div(x=scalar(x, root), y=largest))
    norm = mb.sqrt(x=mb.add(x=squares, y=offset))
    return mb.real_div(x=part, y=norm), mb.real_div(x=scalar(x, 1.0), y=mb.mul(x=norm, y=largest))


def standard_deviation_one(x: Var, axes: Sequence[int], epsilon: float) -> Var:
    """``d / (sqrt(mean(d²)) + epsilon)`` of the deviations ``d`` from the mean along ``axes``."""
    mb = builder()
    deviations = mb.sub(x=x, y=mb.reduce_mean(x=x, axes=list(axes), keep_dims=True))
    part, largest = scaled(deviations, axes, _SMALLEST)
    squares = mb.reduce_mean(x=mb.square(x=part), axes=list(axes), keep_dims=True)
    offset = mb.mul(x=mb.real_div(x=scalar(x, _SMALLEST), y=largest), y=scalar(x, epsilon / _SMALLEST))
    return mb.real_div(x=part, y=mb.add(x=mb.sqrt(x=squares), y=offset))


def unit_norm(x: Var, axis: int, order: int) -> Var:
    """``x / |x|`` along one axis, zeros where the norm (of order 1 or 2) is zero."""
    mb = builder()
    largest = mb.reduce_max(x=mb.abs(x=x), axes=[axis], keep_dims=True)
    empty = mb.cast(x=mb.equal(x=largest, y=scalar(x, 0.0)), dtype=mil_type_name(x))
    part = mb.real_div(x=x, y=mb.add(x=largest, y=empty))
    if order == 1:
        norm = mb.reduce_sum(x=mb.abs(x=part), axes=[axis], keep_dims=True)
    else:
        norm = mb.sqrt(x=mb.reduce_sum(x=mb.square(x=part), axes=[axis], keep_dims=True))
    # at least 1 (the largest element is) unless all are zero
    return mb.real_div(x=part, y=mb.maximum(x=norm, y=scalar(x, 1.0)))
