"""What to try where nothing keeps the budgets, and what the choice of the calibration text has changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgeq.benchmarks.units import format_difference
from edgeq.comparison import Row
from edgeq.language.choices import Axes
from edgeq.language.measures import PERPLEXITY, quality
from edgeq.language.pareto import Spread
from edgeq.targets.registry import get_target

SMALLER_GROUP = 32


def what_to_try(rows: Sequence[Row], axes: Axes) -> list[str]:
    """Settings that cost less quality than those that were tried."""
    tries = []
    overrides = _overrides(rows)
    if overrides:
        given = " ".join(f"--override '{text}'" for text in overrides)
        tries.append(f"8 bits for the layers that lose most, {given}")
    if 8 not in axes.bits:
        tries.append("--bits 8")
    tried = {row.candidate.recipe.block_size for row in rows if row.candidate.recipe is not None}
    if not any(size is not None and 0 < size <= SMALLER_GROUP for size in tried):
        tries.append(f"--block-size {SMALLER_GROUP}")
    return [f"Try {'; or '.join(tries)}."] if tries else []


def _overrides(rows: Sequence[Row]) -> tuple[str, ...]:
    """What the diagnosis of an artefact recommends whose format mixes bits."""
    for row in rows:
        diagnosis = None if row.result is None else row.result.manifest.diagnosis
        rules = get_target(row.candidate.target).capabilities().weights
        if diagnosis is not None and diagnosis.overrides and rules is not None and rules.mixed:
            return diagnosis.overrides
    return ()


def calibration_sentences(rows: Sequence[Row], chosen: str | None, calibrations: Sequence[str]) -> list[str]:
    """For methods that read the text: what another one has changed, and for what was recommended first."""
    if len(calibrations) < 2:
        return []
    found = [*_changes(rows, chosen)]
    if not found:
        return ["The calibration text was compared in no format, as no row that reads it was measured."]
    return found


def _changes(rows: Sequence[Row], chosen: str | None) -> Iterator[str]:
    groups: dict[object, list[Row]] = {}
    for row in rows:
        one = row.candidate
        if one.calibration is not None and row.result is not None and PERPLEXITY in row.result.measurements:
            key = (one.target, tuple(one.options.items()), one.recipe)
            groups.setdefault(key, []).append(row)
    several = [group for group in groups.values() if len(group) > 1]
    several.sort(key=lambda group: not any(row.candidate.name == chosen for row in group))
    for group in several:
        yield _change(group)


def _change(group: Sequence[Row]) -> str:
    best, *others = sorted(group, key=_perplexity)
    name = best.candidate.name.removesuffix(")").removesuffix(f"-{best.candidate.calibration}")
    parts = []
    for other in others:
        more = format_difference(_perplexity(other) - _perplexity(best), "")
        noise = "" if _spread(best).below(_spread(other)) else ", within noise"
        parts.append(f"{more} with {other.candidate.calibration}{noise}")
    return (
        f"Calibration of {name + ')' if '(' in name else name}: perplexity is lowest with "
        f"{best.candidate.calibration} ({'; '.join(parts)})."
    )


def _perplexity(row: Row) -> float:
    assert row.result is not None
    return row.result.measurements[PERPLEXITY].value


def _spread(row: Row) -> Spread:
    assert row.result is not None
    return quality(row.result.measurements[PERPLEXITY])
