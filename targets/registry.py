"""Targets by name, found through the entry-point group ``edgeq.targets`` and imported lazily."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import cast

from edgeq.errors import TargetError, UsageError
from edgeq.targets.base import Target

GROUP = "edgeq.targets"
# Names that stand for several targets.
FAMILIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"all-cpu": ("onnxruntime", "openvino", "neural-compressor")}
)


def target_names() -> list[str]:
    """All registered target names, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def expand_targets(texts: Sequence[str]) -> list[str]:
    """Names of registered targets, each once, from names, families of them, and lists with commas.

    Raises:
        UsageError: one that is neither a target nor a family.
    """
    found, known = split_targets(texts), target_names()
    for name in found:
        if name not in known:
            raise UsageError(
                f"Unknown target {name!r}.",
                fix=f"Known targets: {', '.join(known)}. Several at once: {', '.join(FAMILIES)}.",
            )
    return found


def split_targets(texts: Sequence[str]) -> list[str]:
    """As :func:`expand_targets`; whether they are registered is not looked up."""
    named = [name.strip() for text in texts for name in text.split(",")]
    found = [target for name in named for target in FAMILIES.get(name, (name,))]
    return list(dict.fromkeys(found))


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
