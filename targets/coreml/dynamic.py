"""Sizes of the model's dynamic dimensions: what the user said, batch 1 where nothing was said."""

from __future__ import annotations

from collections.abc import Mapping

from edgeq.compiler.model import Model
from edgeq.errors import ConfigError
from edgeq.targets.coreml.frontend.dimensions import Dimension


def resolve_dimensions(
    model: Model, given: Mapping[str, Dimension]
) -> tuple[dict[str, Dimension], tuple[str, ...]]:
    """The size of every dynamic dimension that has one, and notes on what was chosen here.

    What is the first axis of an input is the batch: applications run sample by sample, so it becomes 1. Other
    dimensions have no size that would be right for every model; lowering asks the user for them.

    Raises:
        ConfigError: ``given`` names a dimension that the model does not have.
    """
    found = _dynamic(model)
    unknown = sorted(set(given) - found.keys())
    if unknown:
        names = ", ".join(found) or "none"
        raise ConfigError(
            f"The model has no dynamic dimension {unknown[0]!r}.", fix=f"Its dynamic dimensions: {names}."
        )
    chosen = dict(given)
    batches = [name for name, axes in found.items() if 0 in axes and name not in given]
    chosen.update({name: Dimension(1, 1) for name in batches})
    notes = tuple(
        f"The batch dimension {name!r} is fixed to 1; --dimension {name}=1..8 would keep it flexible."
        for name in batches
    )
    return chosen, notes


def _dynamic(model: Model) -> dict[str, set[int]]:
    """Name (or ``input:axis``) → the axes of inputs where it stands."""
    found: dict[str, set[int]] = {}
    for spec in model.inputs:
        for axis, size in enumerate(spec.shape or ()):
            if not isinstance(size, int):
                found.setdefault(size or f"{spec.name}:{axis}", set()).add(axis)
    return found
