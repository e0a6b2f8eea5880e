"""Targets by name, found through the entry-point group ``edgeq.targets`` and imported lazily."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import cast

from edgeq.errors import TargetError, UsageError
from edgeq.targets.base import Target

GROUP = "edgeq.targets"


def target_names() -> list[str]:
    """All registered target names, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def get_target(name: str) -> Target:
    """The target called ``name``.

    Raises:
        UsageError: no target of that name is registered.
        TargetError: it is registered but cannot be imported.
    """
    found = [point for point in entry_points(group=GROUP) if point.name == name]
    if not found:
        raise UsageError(
            f"Unknown target {name!r}.", fix=f"Known targets: {', '.join(target_names()) or 'none'}."
        )
    try:
        factory = found[0].load()
    except ImportError as error:
        raise TargetError(f"Target {name!r} cannot be loaded: {error}.") from error
    return cast(Target, factory())
