"""What the modules of a folder register under names, in one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any


def collect(package: str, modules: Iterable[str], table: str) -> Mapping[str, Any]:
    """All entries of ``table`` (a name to value mapping) in ``modules`` of ``package``.

    Raises:
        RuntimeError: two modules register one name.
    """
    found: dict[str, Any] = {}
    for module in modules:
        entries = getattr(import_module(f"{package}.{module}"), table)
        twice = set(found) & set(entries)
        if twice:
            raise RuntimeError(f"{table} has two of {sorted(twice)}")
        found.update(entries)
    return MappingProxyType(found)
