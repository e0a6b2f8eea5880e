"""Which rows a comparison of language models has: methods, bits, groups, formats and texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Literal, cast

from edgeq.candidates import Candidate
from edgeq.compiler.recipe import Recipe, Scheme, WeightMethod
from edgeq.compiler.weights.rules import CALIBRATED
from edgeq.compiler.weights.spec import BITS, OF_SCHEME, PER_CHANNEL
from edgeq.errors import UsageError
from edgeq.language.engines import FORMATS
from edgeq.targets.capabilities import Capabilities, WeightRules
from edgeq.targets.registry import get_target

Method = Literal["rtn", "gptq", "awq", "nf4", "smoothquant"]
# What is compared where no method is named; W8A8 by SmoothQuant, of vllm alone, must be.
METHODS: tuple[Method, ...] = ("rtn", "gptq", "awq", "nf4")
KNOWN: tuple[Method, ...] = (*METHODS, "smoothquant")
SCHEMES: Mapping[int, Scheme] = {BITS[kind]: scheme for scheme, kind in OF_SCHEME.items() if kind != "nf4"}
DEFAULT_BITS = 4


@dataclass(frozen=True)
class _Fixed:
    """A method that has one scheme, ``what`` a format stores of it in words."""

    scheme: Scheme
    bits: int
    what: str
    block_size: int | None = None


_FIXED: Mapping[str, _Fixed] = {
    "nf4": _Fixed("nf4-weight", 4, "NF4 weights"),
    "smoothquant": _Fixed("int8-dynamic", 8, "W8A8", PER_CHANNEL),
}
# Types of GGUF files that llama.cpp makes by itself, from the scheme that they belong to.
TYPED = "gguf"


@dataclass(frozen=True)
class Axes:
    """What was asked for; an axis without values has the sensible ones.

    ``block_sizes`` -1 is a scale per output channel; none: each format's own. ``types`` are types of GGUF
    files, which llama.cpp makes. ``calibrations`` are the names of the texts.
    """

    methods: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    bits: tuple[int, ...] = ()
    block_sizes: tuple[int, ...] = ()
    types: tuple[str, ...] = ()
    calibrations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choices:
    """The rows, those that were asked for in vain (with the reason), and how many others were left out."""

    candidates: tuple[Candidate, ...]
    refused: tuple[tuple[Candidate, str], ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)


def choose(axes: Axes, recipe_fields: Mapping[str, object]) -> Choices:
    """Every combination that its format stores; ``recipe_fields`` go into the recipes that read them.

    A format, method, number of bits or block size that was named and that no combination can have is refused
    in a row of its own; other combinations that a format cannot store are left out and counted by reason.

    Raises:
        UsageError: an unknown method or format, or no number of bits that exists.
    """
    _check(axes)
    found: list[Candidate] = []
    seen: dict[str, set[object]] = {"formats": set(), "methods": set(), "bits": set(), "block_sizes": set()}
    reasons: dict[str, list[_Combination]] = {}
    for one in _combinations(axes):
        why = one.why_not()
        if why:
            reasons.setdefault(why, []).append(one)
            continue
        for axis, value in one.values().items():
            seen[axis].add(value)
        found += _rows(one, axes, recipe_fields)
    found += _typed(axes, recipe_fields)
    if axes.types:
        seen["formats"].add(TYPED)
    vain = list(_in_vain(axes, seen, reasons))
    shown = {why for _, why in vain}
    counts = Counter({why: len(ones) for why, ones in reasons.items() if why not in shown})
    return Choices(tuple(_unique(found)), tuple(vain), dict(counts))


@dataclass(frozen=True)
class _Combination:
    """One method at one width, in one format."""

    method: str
    bits: int
    block_size: int
    format: str
    rules: WeightRules
    schemes: tuple[Scheme, ...]

    @property
    def scheme(self) -> Scheme:
        fixed = _FIXED.get(self.method)
        return SCHEMES[self.bits] if fixed is None else fixed.scheme

    @property
    def parts(self) -> list[str]:
        """What its name is made of."""
        group = "channel" if self.block_size == PER_CHANNEL else f"g{self.block_size}"
        return [self.method, f"{self.bits}bit", group]

    def values(self) -> dict[str, object]:
        """Axis → this one's value."""
        return {
            "methods": self.method,
            "bits": self.bits,
            "block_sizes": self.block_size,
            "formats": self.format,
        }

    def why_not(self) -> str:
        """Why the format cannot store it; empty: it can."""
        rules, fixed = self.rules, _FIXED.get(self.method)
        if fixed is not None:
            return self._why_not_fixed(fixed) or self._why_no_groups()
        if self.scheme not in self.schemes or self.bits not in rules.bits:
            can = _listed(bits for bits in rules.bits if SCHEMES.get(bits) in self.schemes)
            return f"{self.format} stores weights of {can} bits" if can else f"{self.format} stores NF4 alone"
        if self.method not in rules.methods:
            return f"{self.format} does not take {self.method}"
        return self._why_no_groups()

    def _why_not_fixed(self, fixed: _Fixed) -> str:
        if self.bits != fixed.bits:
            return f"{self.method} has {fixed.bits} bits"
        if self.scheme not in self.schemes:
            return f"{self.format} stores no {fixed.what}"
        if fixed.block_size not in (None, self.block_size):
            return f"{self.method} has no groups: a scale per output channel"
        return ""

    def _why_no_groups(self) -> str:
        sizes = self.rules.group_sizes
        return (
            "" if self.block_size in sizes else f"{self.format} has groups of {_listed(map(_group, sizes))}"
        )


def _combinations(axes: Axes) -> Iterator[_Combination]:
    for name in axes.formats or ready_formats():
        capabilities = get_target(name).capabilities()
        rules = _rules(name, capabilities)
        for method in axes.methods or METHODS:
            fixed = _FIXED.get(method)
            width = DEFAULT_BITS if fixed is None else fixed.bits
            size = rules.group_size if fixed is None or fixed.block_size is None else fixed.block_size
            for bits, block in product(axes.bits or (width,), axes.block_sizes or (size,)):
                yield _Combination(method, bits, block, name, rules, capabilities.schemes)


def ready_formats() -> tuple[str, ...]:
    """The formats that this machine can write."""
    return tuple(name for name in FORMATS if get_target(name).availability().ready)


def _rows(one: _Combination, axes: Axes, fields: Mapping[str, object]) -> Iterator[Candidate]:
    """One for each calibration text, where the method reads it."""
    recipe = _recipe(one, fields)
    texts: Sequence[str | None] = axes.calibrations if one.method in CALIBRATED else (None,)
    for text in texts or (None,):
        parts = one.parts
        if text is not None and len(axes.calibrations) > 1:
            parts.append(text)
        yield Candidate(one.format, {}, "-".join(parts), recipe, text)


def _recipe(one: _Combination, fields: Mapping[str, object]) -> Recipe:
    own: dict[str, object] = {"scheme": one.scheme}
    if one.scheme != "int8-dynamic":
        own["block_size"] = one.block_size
    if one.method != "nf4":
        own["weight_method"] = cast(WeightMethod, one.method)
    read = {key: value for key, value in fields.items() if key in _READ_BY[one.method]}
    return Recipe.model_validate({**own, **read})


_READ_BY: Mapping[str, frozenset[str]] = {
    "rtn": frozenset({"symmetric_weights", "overrides"}),
    "gptq": frozenset({"symmetric_weights", "overrides", "calibration_samples", "damping", "act_order"}),
    "awq": frozenset({"symmetric_weights", "overrides", "calibration_samples"}),
    "nf4": frozenset({"overrides"}),
    "smoothquant": frozenset({"overrides", "calibration_samples"}),
}


def _typed(axes: Axes, fields: Mapping[str, object]) -> Iterator[Candidate]:
    """Rows of types that llama.cpp makes; the importance matrix comes from the calibration text."""
    from edgeq.targets.gguf.types import FILE_TYPES

    for name in axes.types:
        if name not in FILE_TYPES:
            raise UsageError(
                f"Unknown type of GGUF file {name!r}.", fix=f"Choose of: {', '.join(FILE_TYPES)}."
            )
        kind = FILE_TYPES[name]
        read = {"overrides", *(("calibration_samples",) if kind.maker == "llama.cpp" else ())}
        recipe = Recipe.model_validate(
            {"scheme": kind.scheme, **{key: value for key, value in fields.items() if key in read}}
        )
        for text in axes.calibrations or (None,):
            parts = [name, text] if text is not None and len(axes.calibrations) > 1 else [name]
            yield Candidate(TYPED, {"type": name}, "-".join(parts), recipe, text)


def _in_vain(
    axes: Axes, seen: Mapping[str, set[object]], reasons: Mapping[str, list[_Combination]]
) -> Iterator[tuple[Candidate, str]]:
    """A row for every value that was named and that no combination has."""
    told: set[str] = set()
    for axis in seen:
        for value in getattr(axes, axis):
            if value in seen[axis]:
                continue
            why = next((why for why, ones in reasons.items() if _has(ones, axis, value)), "")
            if not why or why in told:
                continue
            told.add(why)
            one = next(one for one in reasons[why] if one.values()[axis] == value)
            yield Candidate(one.format, {}, "-".join(one.parts)), why


def _has(ones: Iterable[_Combination], axis: str, value: object) -> bool:
    return any(one.values()[axis] == value for one in ones)


def _unique(found: Iterable[Candidate]) -> Iterator[Candidate]:
    names: set[str] = set()
    for one in found:
        if one.suffix not in names:
            names.add(one.suffix)
            yield one


def _rules(name: str, capabilities: Capabilities) -> WeightRules:
    if capabilities.weights is None or name not in FORMATS:
        raise UsageError(
            f"{name!r} is no format of language models.", fix=f"Choose of: {', '.join(FORMATS)}."
        )
    return capabilities.weights


def _check(axes: Axes) -> None:
    unknown = [name for name in axes.methods if name not in KNOWN]
    if unknown:
        raise UsageError(f"Unknown method {unknown[0]!r}.", fix=f"Choose of: {', '.join(KNOWN)}.")
    strange = [bits for bits in axes.bits if bits not in SCHEMES]
    if strange:
        raise UsageError(f"There are no weights of {strange[0]} bits.", fix=f"Choose of: {_listed(SCHEMES)}.")
    if axes.types and axes.formats and TYPED not in axes.formats:
        raise UsageError(
            "Types are of GGUF files, and 'gguf' is not among the formats.", fix="Add it to the formats."
        )


def text_names(texts: Sequence[object]) -> tuple[str, ...]:
    """A short name for each calibration text, by its file; unique.

    Raises:
        UsageError: the same text is named twice.
    """
    names = [
        Path(text).stem if isinstance(text, (str, Path)) else f"data{i}" for i, text in enumerate(texts, 1)
    ]
    if len(set(names)) == len(names):
        return tuple(names)
    if len({str(text) for text in texts}) < len(texts):
        raise UsageError("A calibration text is given twice.", fix="Give it once.")
    return tuple(f"{name}-{i}" for i, name in enumerate(names, 1))


def _listed(values: Iterable[object]) -> str:
    texts = [str(value) for value in values]
    return texts[-1] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}" if texts else ""


def _group(size: int) -> str:
    return "whole output channels" if size == PER_CHANNEL else str(size)
