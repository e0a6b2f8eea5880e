"""Which artefact wins: of those that keep every budget the fastest, then the smallest, never by noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeq.benchmarks.intervals import Estimate, Times, block_bootstrap, median_ratio
from edgeq.benchmarks.measurement import Measurements
from edgeq.benchmarks.units import format_value

# Two sessions of the same model on the same machine differ by this much from where their memory lies, which
# the interval of a single run does not see; a smaller lead is none.
LEAD = 1.03


@dataclass(frozen=True)
class Contender:
    """An artefact; ``kept``: every budget. ``times`` of several stem from the same turns, None: not timed."""

    name: str
    kept: bool
    size: int
    times: Times | None
    measurements: Measurements

    @property
    def median(self) -> float:
        """Seconds of one inference."""
        return self.measurements["latency_p50"].value

    @property
    def speedup(self) -> str:
        """`` and 1.62x FP32``, or nothing."""
        found = self.measurements.get("speedup")
        return "" if found is None else f" and {found.value:.2f}x FP32"


@dataclass(frozen=True)
class Winner:
    """``name`` is None where none can be named; ``sentence`` says why it is, or why not."""

    name: str | None
    sentence: str


def choose_winner(contenders: Sequence[Contender], *, budgets: bool) -> Winner:
    """The winner by budgets; without ``budgets`` the sentence says what leads, and names none."""
    if not contenders:
        return Winner(None, "No winner: nothing was compiled and measured.")
    if not budgets:
        return Winner(None, f"No winner without budgets: {_leader(contenders).sentence}")
    keeping = [one for one in contenders if one.kept]
    if not keeping:
        return Winner(None, "No winner: no artefact keeps every budget.")
    if len(keeping) == 1:
        name = keeping[0].name
        return Winner(name, f"Winner: {name}, the only artefact that keeps every budget.")
    found = _leader(keeping)
    all_of_them = "" if len(keeping) < len(contenders) else "all "
    reason = f"of {all_of_them}{len(keeping)} that keep every budget, {found.sentence}"
    return Winner(found.name, f"{'No winner' if found.name is None else f'Winner: {found.name}'}: {reason}")


def _leader(contenders: Sequence[Contender]) -> Winner:
    """The fastest; of equally fast ones the smallest."""
    timed = sorted((one for one in contenders if one.times is not None), key=lambda one: one.median)
    if not timed:
        return _smallest(contenders)
    first, others = timed[0], timed[1:]
    untimed = [one.name for one in contenders if one.times is None]
    aside = f" ({', '.join(untimed)}: no latency here)" if untimed else ""
    if not others:
        return Winner(first.name, f"{first.name} is the only one that was timed{aside}.")
    equal = [one for one in others if not _leads(_lead(first, one))]
    if equal:
        names = " and ".join(one.name for one in [first, *equal])
        found = _smallest([first, *equal])
        return Winner(found.name, f"{names} are equally fast within noise{aside}, and {found.sentence}")
    lead = _lead(first, others[0])
    against = f"{lead.value:.2f}x {others[0].name} ({_interval(lead)}){first.speedup}"
    return Winner(first.name, f"{first.name} is the fastest: {against}{aside}.")


def _smallest(contenders: Sequence[Contender]) -> Winner:
    first, *others = sorted(contenders, key=lambda one: one.size)
    if not others:
        return Winner(first.name, f"{first.name} is the only one.")
    sizes = f"{format_value(first.size, 'bytes')} against {format_value(others[0].size, 'bytes')}"
    if others[0].size < LEAD * first.size:
        return Winner(None, f"{first.name} and {others[0].name} are about equally small ({sizes}).")
    return Winner(first.name, f"{first.name} is the smallest ({sizes} of {others[0].name}).")


def _lead(first: Contender, other: Contender) -> Estimate:
    """How many times faster ``first`` is, with its 95 % interval over the turns that both ran in."""
    assert first.times is not None
    assert other.times is not None
    return block_bootstrap(first.times, other.times, {"lead": median_ratio})["lead"]


def _leads(lead: Estimate) -> bool:
    return lead.interval is not None and lead.interval[0] > 1 and lead.value >= LEAD


def _interval(lead: Estimate) -> str:
    low, high = lead.interval or (lead.value, lead.value)
    return f"95 % interval {low:.2f}x to {high:.2f}x"
