"""Options of targets: from ``KEY=VALUE`` texts to values, and the kinds of values that targets share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edgeq.errors import ConfigError, UnknownOptionError
from edgeq.targets.dimensions import parse_dimension

# Makes the value of (key, text); raises ConfigError.
Parser = Callable[[str, str], Any]
# Keys that take a name after a dot → the field that collects their values by name, and what makes a value.
Named = Mapping[str, tuple[str, Parser]]
DIMENSIONS: Named = MappingProxyType({"dimension": ("dimensions", parse_dimension)})


def parse_pairs(
    target: str, pairs: Mapping[str, str], parsers: Mapping[str, Parser], named: Named = DIMENSIONS
) -> dict[str, Any]:
    """Field → value; keys may be written with ``-`` or ``_``.

    Raises:
        UnknownOptionError: an unknown key.
        ConfigError: a key that is given twice, or what is no value of it.
    """
    _refuse_no_texts(target, pairs)
    fields: dict[str, Any] = {field: {} for field, _ in named.values()}
    for key, text in pairs.items():
        plain, _, name = key.partition(".")
        plain = plain.replace("-", "_")
        if plain in named:
            field, parse = named[plain]
            fields[field][_named(key, name)] = parse(name, text)
        elif plain in parsers and not name:
            if plain in fields:
                raise ConfigError(f"The option {plain!r} is given twice.", fix="Give it once.")
            fields[plain] = parsers[plain](plain, text)
        else:
            known = ", ".join(sorted([*parsers, *(f"{one}.NAME" for one in named)]))
            raise UnknownOptionError(f"The target {target!r} has no option {key!r}.", fix=f"It has: {known}.")
    return fields


def _refuse_no_texts(target: str, pairs: object) -> None:
    """For callers from Python: the command line and files give texts."""
    if not isinstance(pairs, Mapping):
        raise ConfigError(
            f"The options of the target {target!r} are of the type {type(pairs).__name__}.",
            fix="Give a mapping of texts: {'KEY': 'VALUE'}.",
        )
    for key, text in pairs.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise ConfigError(
                f"The option {key!r} of the target {target!r} is {text!r}; both must be texts.",
                fix=f"Write {str(key)!r}: {str(text)!r}.",
            )


def _named(key: str, name: str) -> str:
    if not name:
        raise ConfigError(f"The option {key!r} lacks a name.", fix=f"Write {key.rstrip('.')}.NAME=VALUE.")
    return name


# --- kinds of values ----------------------------------------------------------------------------------------


def text_value(_key: str, text: str) -> str:
    """Any text, as it is."""
    return text


def choice(*allowed: str) -> Callable[[str, str], str]:
    """One of some words."""

    def parse(key: str, text: str) -> str:
        if text.strip() not in allowed:
            raise ConfigError(f"The option {key!r} cannot be {text!r}.", fix=f"It is {' or '.join(allowed)}.")
        return text.strip()

    return parse


def switch(key: str, text: str) -> bool:
    """``true`` or ``false``."""
    return choice("true", "false")(key, text.lower()) == "true"


def whole(lowest: int, highest: int | None = None) -> Callable[[str, str], int]:
    """A whole number from ``lowest`` to ``highest`` inclusive."""

    def parse(key: str, text: str) -> int:
        number = int(text) if text.strip().isdecimal() else -1
        if number < lowest or (highest is not None and number > highest):
            to = f"to {highest}" if highest is not None else "or more"
            raise ConfigError(
                f"The option {key!r} cannot be {text!r}.", fix=f"Give a whole number, {lowest} {to}."
            )
        return number

    return parse


def path_value(key: str, text: str) -> Path:
    """The path of a file."""
    if not text.strip():
        raise ConfigError(f"The option {key!r} is empty.", fix="Give the path of a file.")
    return Path(text.strip())
