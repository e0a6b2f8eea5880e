"""What every quantization scheme returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgeq.compiler.model import Model
from edgeq.compiler.plan import Plan, QuantParams
from edgeq.compiler.weights.store import WeightStore


@dataclass(frozen=True)
class Quantized:
    """The quantized model, the plan it was made by, the scales found, and notes for the user.

    ``params`` maps tensor names to their scales and zero points: the one source of truth for every target.
    ``weights`` are those of a checkpoint, whose model has no nodes.
    """

    model: Model
    plan: Plan
    params: dict[str, QuantParams] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    weights: WeightStore | None = None
