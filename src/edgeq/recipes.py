"""Recipes from what a user wrote: unknown values are refused, and so are options that would do nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import ValidationError

from edgeq.compiler.recipe import SCHEMES, Override, Precision, Recipe, Scheme
from edgeq.errors import ConfigError, UsageError
from edgeq.validation import config_error

# Which schemes read which field of the recipe; a field that is not here is read by all of them.
READ_BY: Mapping[str, frozenset[Scheme]] = {
    "range_method": frozenset({"int8-static"}),
    "percentile": frozenset({"int8-static"}),
    "bias_correction": frozenset({"int8-static"}),
    "smoothing": frozenset({"int8-static"}),
    "saturation_safe": frozenset({"int8-static", "int8-dynamic"}),
    "calibration_samples": frozenset(SCHEMES) - {"fp32", "fp16", "palettize-4", "palettize-6"},
    "block_size": frozenset({"int8-weight", "int4-weight", "int3-weight", "int2-weight", "nf4-weight"}),
    "symmetric_weights": frozenset({"int8-weight", "int4-weight", "int3-weight", "int2-weight"}),
    "weight_method": frozenset({"int8-dynamic", "int8-weight", "int4-weight", "int3-weight", "int2-weight"}),
    "damping": frozenset({"int8-weight", "int4-weight", "int3-weight", "int2-weight"}),
    "act_order": frozenset({"int8-weight", "int4-weight", "int3-weight", "int2-weight"}),
    "accuracy_level": frozenset({"int8-weight", "int4-weight"}),
    "overrides": frozenset(SCHEMES) - {"fp32"},
}


def make_recipe(
    scheme: str, fields: Mapping[str, Any], *, where: str, spelled: Callable[[str], str] = str
) -> Recipe:
    """The recipe with the ``fields`` that the user gave; the others keep their defaults.

    ``where`` names the file or command in messages, ``spelled`` turns a field's name into what the user
    writes there (``--block-size``).

    Raises:
        UsageError: unknown scheme, or a field that the scheme does not read.
        ConfigError: a value that is not valid.
    """
    check_scheme_name(scheme)
    try:
        recipe = Recipe.model_validate({"scheme": scheme, **fields})
    except ValidationError as error:
        raise config_error(error, where=where, allowed=list(Recipe.model_fields)) from error
    check_read(recipe, fields, spelled)
    return recipe


def check_read(
    recipe: Recipe, fields: Iterable[str] | None = None, spelled: Callable[[str], str] = str
) -> None:
    """Refuse ``fields`` that would do nothing; by default those whose value is not the default.

    Raises:
        UsageError: naming the field, and when it would have an effect.
    """
    given = _changed(recipe) if fields is None else list(fields)
    for name in given:
        _check_scheme_reads(name, recipe.scheme, spelled)
    if recipe.range_method != "percentile":
        _refuse(
            given,
            ("percentile",),
            f"range method {recipe.range_method!r}",
            ("range_method", "percentile"),
            spelled,
        )
    if recipe.weight_method != "gptq":
        method = f"method {recipe.weight_method or 'rtn'!r}"
        _refuse(given, ("damping", "act_order"), method, ("weight_method", "gptq"), spelled)


def _changed(recipe: Recipe) -> list[str]:
    defaults = Recipe(scheme=recipe.scheme)
    return [name for name in Recipe.model_fields if getattr(recipe, name) != getattr(defaults, name)]


def _refuse(
    given: Collection[str],
    names: Sequence[str],
    situation: str,
    remedy: tuple[str, str],
    spelled: Callable[[str], str],
) -> None:
    for name in names:
        if name in given:
            raise UsageError(
                f"{spelled(name)} has no effect with {situation}.",
                fix=f"Set {spelled(remedy[0])} to {remedy[1]}, or leave it out.",
            )


def check_scheme_name(scheme: str) -> None:
    """Refuse a scheme that does not exist.

    Raises:
        UsageError: naming the schemes there are, and the one that was probably meant.
    """
    if scheme in SCHEMES:
        return
    close = get_close_matches(scheme, SCHEMES, n=1, cutoff=0.4)
    hint = f"Did you mean {close[0]}? " if close else ""
    raise UsageError(f"Unknown scheme {scheme!r}.", fix=f"{hint}Known schemes: {', '.join(SCHEMES)}.")


def parse_override(text: str) -> Override:
    """An override from ``MATCH=PRECISION``: ``/head/*=fp32``, ``op:Conv=int8``.

    Raises:
        ConfigError: it has another form or an unknown precision.
    """
    match, equals, precision = text.rpartition("=")
    allowed = get_args(Precision)
    if not equals or not match or precision not in allowed:
        raise ConfigError(
            f"Override {text!r} is not MATCH=PRECISION.",
            fix=f"Write a glob on node names or op:Type, then = and one of {', '.join(allowed)}.",
        )
    return Override(match=match, precision=precision)  # type: ignore[arg-type]  # checked above


def exclusions(patterns: Sequence[str]) -> tuple[Override, ...]:
    """Overrides that keep the matching nodes in float32."""
    return tuple(Override(match=pattern, precision="fp32") for pattern in patterns)


def _check_scheme_reads(name: str, scheme: str, spelled: Callable[[str], str]) -> None:
    schemes = READ_BY.get(name)
    if schemes is None or scheme in schemes:
        return
    readers = ", ".join(s for s in SCHEMES if s in schemes)
    raise UsageError(
        f"{spelled(name)} has no effect with scheme {scheme!r}.",
        fix=f"Leave it out, or choose a scheme that reads it: {readers}.",
    )
