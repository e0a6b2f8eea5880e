"""What pydantic found wrong with a user's values, in one sentence that names the key and what is allowed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from edgeq.errors import ConfigError


def config_error(error: ValidationError, *, where: str, allowed: Collection[str] = ()) -> ConfigError:
    """The first problem as a ConfigError: ``where`` (a file, an option), the key, what is allowed.

    ``allowed`` are the keys that the section with an unknown key may have.
    """
    first = first_problem(error)
    key = key_text(first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return ConfigError(f"{where}: unknown key {key}{more}.", fix=_known(str(first["loc"][-1]), allowed))
    if first["type"] == "missing":
        return ConfigError(f"{where}: {key} is missing{more}.", fix=f"Add {first['loc'][-1]} = ….")
    return ConfigError(f"{where}: {key} = {_shown(first['input'])} is not valid{more}.", fix=_wanted(first))


def first_problem(error: ValidationError) -> Any:
    """The problem to show: a misspelt key is both unknown and missing, and the unknown one says more."""
    return min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")


def key_text(location: Sequence[int | str]) -> str:
    """A key as the file writes it: ``targets[0].budgets[1]``; entries are counted from 1."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part + 1}]"
        else:
            text += f".{part}" if text else part
    return text or "the value"


def _known(key: str, allowed: Collection[str]) -> str:
    close = get_close_matches(key, list(allowed), n=1)
    hint = f"Did you mean {close[0]}? " if close else ""
    return f"{hint}Allowed: {', '.join(allowed)}." if allowed else "Remove it."


def _wanted(problem: Any) -> str:
    """Pydantic's own words for what it wanted, as a sentence."""
    if problem["type"] == "literal_error":
        return f"Allowed: {problem['ctx']['expected'].replace(chr(39), '')}."
    message = str(problem["msg"]).removeprefix("Value error, ").rstrip(".")
    return f"{message.removeprefix('Input ')[:1].upper()}{message.removeprefix('Input ')[1:]}."


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
