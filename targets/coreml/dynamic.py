"""Sizes of the model's dynamic dimensions: what the user said, batch 1 where nothing was said."""

from __future__ import annotations

from collections.abc import Mapping

from edgeq.compiler.model import Model
from edgeq.targets.dimensions import Dimension, dynamic_dimensions, refuse_unknown


def resolve_dimensions(
    model: Model, given: Mapping[str, Dimension]
) -> tuple[dict[str, Dimension], tuple[str, ...]]:
    """The size of every dynamic dimension that has one, and notes on what was chosen here.

    What is the first axis of an input is the batch: applications run sample by sample, so it becomes 1. Other
    dimensions have no size that would be right for every model; lowering asks the user for them.

    Raises:
        ConfigError: ``given`` names a dimension that the model does not have.
    """
    refuse_unknown(model, given)
    found = dynamic_dimensions(model)
    chosen = dict(given)
    batches = [name for name, axes in found.items() if 0 in axes and name not in given]
    chosen.update({name: Dimension(1, 1) for name in batches})
    notes = tuple(
        f"The batch dimension {name!r} is fixed to 1; --dimension {name}=1..8 would keep it flexible."
        for name in batches
    )
    return chosen, notes
