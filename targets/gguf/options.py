"""What the user can choose about a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from edgeq.compiler.recipe import Recipe
from edgeq.errors import ConfigError, TargetError
from edgeq.targets.gguf.llama import is_installed
from edgeq.targets.gguf.types import DEFAULTS, FILE_TYPES, FileType, names_of
from edgeq.targets.option_values import choice, parse_pairs

_INSTALL = "pip install 'edgeq[llama-cpp]' (it is compiled then)"


class GgufOptions(BaseModel):
    """``type``: the type of the file, as llama.cpp's tools name it (``q4_k_m``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str

    @property
    def file_type(self) -> FileType:
        """What is known of the type."""
        return FILE_TYPES[self.type]


def parse_options(pairs: Mapping[str, str], recipe: Recipe) -> GgufOptions:
    """The options from ``KEY=VALUE`` texts; the type is the scheme's own where none is named.

    Raises:
        UnknownOptionError: an unknown key.
        ConfigError: a type that the scheme or the recipe has not.
        TargetError: llama.cpp makes the type, and is not installed.
    """
    fields = parse_pairs("gguf", pairs, {"type": choice(*FILE_TYPES)}, {})
    name = fields.get("type") or _default(recipe)
    found = FILE_TYPES[name]
    if found.scheme != recipe.scheme:
        raise ConfigError(
            f"The type {name!r} belongs to the scheme {found.scheme!r}, not to {recipe.scheme!r}.",
            fix=f"Choose --scheme {found.scheme}, or one of: {', '.join(names_of(recipe.scheme))}.",
        )
    _refuse_unused(found, recipe)
    if found.maker == "llama.cpp" and not is_installed():
        raise TargetError(
            f"The type {name!r} is made by llama.cpp, and llama-cpp-python is not installed.",
            fix=f"Install it: {_INSTALL}, or choose one of: {', '.join(_without_llama())}.",
        )
    return GgufOptions(type=name)


def _default(recipe: Recipe) -> str:
    if recipe.scheme == "int4-weight" and not recipe.symmetric_weights:
        return "q4_1"
    return DEFAULTS[recipe.scheme]


def _refuse_unused(found: FileType, recipe: Recipe) -> None:
    """Refuse what the type has no choice of.

    Raises:
        ConfigError: naming the option.
    """
    if found.maker == "codes":
        if not recipe.symmetric_weights and found.name != "q4_1":
            raise ConfigError(
                f"The type {found.name!r} stores symmetric weights, and the recipe asks for asymmetric ones.",
                fix="Choose -O type=q4_1 (scheme int4-weight), or leave symmetric_weights as it is.",
            )
        return
    if recipe.weight_method not in (None, "rtn"):
        raise ConfigError(
            f"The type {found.name!r} is rounded by its own rules, so the method {recipe.weight_method!r} "
            "has no effect.",
            fix="Choose -O type=q8_0, q4_0 or q4_1, which store the method's own codes.",
        )
    if recipe.block_size is not None or not recipe.symmetric_weights:
        raise ConfigError(
            f"The type {found.name!r} has its own blocks: block_size, symmetric_weights have no effect.",
            fix="Leave them out.",
        )


def _without_llama() -> list[str]:
    return [one.name for one in FILE_TYPES.values() if one.maker != "llama.cpp"]
