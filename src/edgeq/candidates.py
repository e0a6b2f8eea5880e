"""What a comparison compares: targets, each with every quantizer and option that was named for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgeq.compiler.recipe import Recipe
from edgeq.errors import EdgeqError, UnknownOptionError, UsageError
from edgeq.targets.registry import get_target, target_names

# The option of a target that says whose methods quantize.
QUANTIZER = "quantizer"


@dataclass(frozen=True)
class Candidate:
    """One target with its own options; ``variant`` tells it from others of the same target.

    ``recipe`` is its own, None: that of the comparison. ``calibration`` names the data that it is calibrated
    with, where there are several; None: the comparison's only one, or none.
    """

    target: str
    options: Mapping[str, str] = field(default_factory=dict)
    variant: str | None = None
    recipe: Recipe | None = None
    calibration: str | None = None

    @property
    def name(self) -> str:
        """What tables call it; unique within a comparison."""
        return self.target if self.variant is None else f"{self.target} ({self.variant})"

    @property
    def suffix(self) -> str:
        """What its artefact folder's name ends with."""
        return self.target if self.variant is None else f"{self.variant}-{self.target}"


def candidates(
    targets: Sequence[str], quantizers: Sequence[str], options: Mapping[str, str], recipe: Recipe
) -> list[Candidate]:
    """Every target with its options, once for each quantizer where it can choose.

    ``TARGET.KEY`` goes to that target alone, any other KEY and the quantizers to every target that has such
    an option; the targets that have it not are compiled as they are.

    Raises:
        UsageError: a prefix that is none of ``targets``, a key that none of them has, or that one has twice.
    """
    _refuse_repeated(quantizers)
    own = _split(targets, options, recipe)
    if not quantizers:
        return [Candidate(target, own[target]) for target in targets]
    choosing = [t for t in targets if _has(t, QUANTIZER, quantizers[0], recipe)]
    if not choosing:
        raise _no_option(targets, QUANTIZER, "Leave out --quantizer: there is only one way to quantize.")
    for target in choosing:
        _refuse_twice(target, QUANTIZER, own[target])
    return [c for target in targets for c in _variants(target, quantizers, own[target], target in choosing)]


def _variants(
    target: str, quantizers: Sequence[str], options: Mapping[str, str], choosing: bool
) -> list[Candidate]:
    if not choosing:
        return [Candidate(target, options)]
    several = len(quantizers) > 1
    return [
        Candidate(target, {**options, QUANTIZER: quantizer}, quantizer if several else None)
        for quantizer in quantizers
    ]


def _refuse_repeated(quantizers: Sequence[str]) -> None:
    for name in quantizers:
        if not name or quantizers.count(name) > 1:
            raise UsageError(
                f"The quantizers {','.join(quantizers)!r} are not each given once.", fix="Give edgeq,nncf."
            )


def _split(targets: Sequence[str], options: Mapping[str, str], recipe: Recipe) -> dict[str, dict[str, str]]:
    """Target → its own options."""
    own: dict[str, dict[str, str]] = {target: {} for target in targets}
    for text, value in options.items():
        for target, key in _addressed(text, value, targets, recipe):
            _refuse_twice(target, key, own[target])
            own[target][key] = value
    return own


def _addressed(text: str, value: str, targets: Sequence[str], recipe: Recipe) -> list[tuple[str, str]]:
    """The targets that an option goes to, and its name there."""
    prefix, dot, key = text.partition(".")
    if dot and prefix in targets:
        # Said here: a target that refuses the scheme would never come to it.
        _refuse_unknown(prefix, key, value, recipe)
        return [(prefix, key)]
    if dot and prefix in target_names():
        raise UsageError(
            f"The option {text!r} is for {prefix!r}, which is not compiled for.",
            fix=f"The targets are: {', '.join(targets)}.",
        )
    # Alone, a target says itself what is wrong with an option.
    found = list(targets) if len(targets) == 1 else [t for t in targets if _has(t, text, value, recipe)]
    if not found:
        raise _no_option(targets, text, "Leave it out, or correct its name.")
    return [(target, text) for target in found]


def _has(target: str, key: str, value: str, recipe: Recipe) -> bool:
    try:
        _refuse_unknown(target, key, value, recipe)
    except UnknownOptionError:
        return False
    return True


def _refuse_unknown(target: str, key: str, value: str, recipe: Recipe) -> None:
    """A value that ``target`` refuses is one of an option that it knows."""
    try:
        get_target(target).options({key: value}, recipe)
    except UnknownOptionError:
        raise
    except EdgeqError:
        return


def _refuse_twice(target: str, key: str, options: Mapping[str, str]) -> None:
    plain = key.replace("-", "_")
    if any(other.replace("-", "_") == plain for other in options):
        raise UsageError(f"The option {key!r} of the target {target!r} is given twice.", fix="Give it once.")


def _no_option(targets: Sequence[str], key: str, fix: str) -> UnknownOptionError:
    if len(targets) == 1:
        return UnknownOptionError(f"The target {targets[0]!r} has no option {key!r}.", fix=fix)
    return UnknownOptionError(f"None of the targets {', '.join(targets)} has an option {key!r}.", fix=fix)
