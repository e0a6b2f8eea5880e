"""The plan: which tensor is quantized how, which node runs in which precision, and why.

A plan is made from the normalized graph, the target's capabilities and the recipe, before any data is
read. Calibration then turns each planned activation into :class:`QuantParams`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

# ``pal4``, ``pal6``: indices of 4 or 6 bits into a palette of floats, which the target's package step makes.
QuantDtype = Literal[
    "uint8", "int8", "uint16", "int16", "uint4", "int4", "int32", "float8e4m3fn", "pal4", "pal6"
]
Precision = Literal[
    "fp32", "fp16", "bf16", "int8", "fp8", "int4", "int3", "int2", "nf4", "pal6", "pal4", "other"
]


@dataclass(frozen=True)
class QuantSpec:
    """How a tensor is quantized: dtype, symmetric (zero point fixed) or not, and its granularity.

    ``axis`` None = per-tensor; ``axis`` alone = per-channel; ``axis`` and ``block_size`` = blocked along it.
    """

    dtype: QuantDtype
    symmetric: bool
    axis: int | None = None
    block_size: int | None = None


@dataclass(frozen=True)
class QuantParams:
    """Scale (float32) and zero point (the spec's dtype): scalars, per channel, or per block."""

    spec: QuantSpec
    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[Any]


@dataclass
class NodePlan:
    """Precision planned for a node, with the reason.

    ``asked`` tells whether the scheme wanted it quantized. ``pinned``: an override keeps it in float32.
    """

    name: str
    op_type: str
    precision: Precision
    reason: str
    asked: bool
    pinned: bool = False


@dataclass
class Plan:
    """Tensor → QuantSpec, node → precision. ``shared`` lists groups of tensors that must have one range.

    ``stored`` names the activations that their producer writes as integers: no float value of them exists,
    so float consumers too read the rounded one.
    ``reads``: node in float → those of its inputs that it reads in the INT8 form that other nodes need.
    """

    activations: dict[str, QuantSpec] = field(default_factory=dict)
    weights: dict[str, QuantSpec] = field(default_factory=dict)
    nodes: dict[str, NodePlan] = field(default_factory=dict)
    shared: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stored: set[str] = field(default_factory=set)
    reads: dict[str, tuple[int, ...]] = field(default_factory=dict)
