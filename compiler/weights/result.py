"""What a weight method hands back: the weights, and what is to be told of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edgeq.compiler.weights.spec import QuantizedWeight


@dataclass(frozen=True)
class MethodResult:
    """``record`` holds JSON values.

    ``error``: the output's squared error divided by the output's square sum (of the calibration data).
    ``damping``: the fraction of the Hessian's mean diagonal that was added to it. ``fallback``: why another
    method was taken, in words; missing when none was.
    """

    weight: QuantizedWeight
    record: dict[str, Any] = field(default_factory=dict)
