"""Which row to ship, in words: budgets, then hardware and memory, then speed, size and perplexity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeq.benchmarks.units import format_value
from edgeq.compiler.recipe import Scheme
from edgeq.language.engines import FORMATS, HARDWARE
from edgeq.language.pareto import UNKNOWN, Spread
from edgeq.language.run_memory import RunMemory

# A smaller lead is none: two runs of the same model on the same machine differ by this much.
LEAD = 1.03
# Sizes this close are equal: names in metadata differ.
CLOSE = 1.005


@dataclass(frozen=True)
class Option:
    """A row as the recommendation sees it.

    ``missed``: a sentence for every budget that it misses; ``excess``: how far beyond its bound the worst of
    them is, as a part of the bound. ``speed`` of the engine itself, in
    generated tokens/s as a multiple of FP32's.
    """

    name: str
    format: str
    scheme: Scheme
    size: int
    perplexity: Spread
    memory: RunMemory
    speed: Spread = UNKNOWN
    missed: tuple[str, ...] = ()
    excess: float = 0.0


@dataclass(frozen=True)
class Place:
    """Where it is to run: one of :data:`HARDWARE` and bytes of memory; None: not said."""

    hardware: str | None = None
    ram: int | None = None

    @property
    def sentence(self) -> str:
        """`` on an x86 or ARM CPU with 8 GB``."""
        where = f" on {HARDWARE[self.hardware]}" if self.hardware else ""
        memory = f" in {format_value(self.ram, 'bytes')} of memory" if self.ram is not None else ""
        return where + memory


@dataclass(frozen=True)
class Recommendation:
    """``name`` is the row to ship, None: nothing does; ``closest`` is then the one that comes closest.

    ``sentences``: what is recommended, and why.
    """

    name: str | None
    sentences: tuple[str, ...]
    closest: str | None = None


def recommend(options: Sequence[Option], place: Place, advice: Sequence[str] = ()) -> Recommendation:
    """The best trade among the rows that keep every budget, run where asked and fit the memory.

    The fastest beyond noise, else (equally fast, or not comparable) the smallest, else the lowest perplexity.
    ``advice``: what to try where nothing does.
    """
    if not options:
        return Recommendation(None, ("Nothing was compiled and measured, so nothing can be recommended.",))
    left = [option for option in options if not option.missed and not _obstacle(option, place)]
    if not left:
        return _closest(options, place, advice)
    chosen, reason = _best(left, place)
    return Recommendation(chosen.name, tuple(_reasons(chosen, reason, left, options, place)))


def _obstacle(option: Option, place: Place) -> str:
    """Why the row does not run at ``place``; empty: it does."""
    if place.hardware is not None and not FORMATS[option.format].runs_on(place.hardware, option.scheme):
        return f"no engine runs {option.scheme} weights as {option.format} on {HARDWARE[place.hardware]}"
    if place.ram is not None and option.memory.total > place.ram:
        return f"it takes {option.memory.sentence}, and there is {format_value(place.ram, 'bytes')}"
    return ""


def _comparable(option: Option, place: Place) -> bool:
    """Whether its speed says something of the place: the engine itself was timed, on its kind of hardware."""
    return place.hardware in (None, "cpu") and FORMATS[option.format].measured and option.speed is not UNKNOWN


def _best(left: Sequence[Option], place: Place) -> tuple[Option, str]:
    timed = [option for option in left if _comparable(option, place)]
    if not timed:
        chosen, reason = _smallest(left)
        return chosen, f"{_untimed(left, place)}, so it is chosen by size: {reason}"
    timed.sort(key=lambda option: -option.speed.value)
    leaders = [option for option in timed if not _slower(option, timed[0])]
    aside = _aside(left, place)
    if len(leaders) == 1:
        return timed[0], _fastest(timed) + aside
    chosen, reason = _smallest(leaders)
    return chosen, f"{len(leaders)} are equally fast within noise{aside}, and of them {reason}"


def _slower(option: Option, first: Option) -> bool:
    return option.speed.below(first.speed) and first.speed.value >= LEAD * option.speed.value


def _fastest(timed: Sequence[Option]) -> str:
    first, *others = timed
    speed = _pace(first)
    if not others:
        return f"it is the only one whose engine was timed here ({speed})"
    ratio = first.speed.value / others[0].speed.value
    return f"it generates fastest, {speed}, {ratio:.2f}x {others[0].name}, beyond noise"


def _untimed(left: Sequence[Option], place: Place) -> str:
    if place.hardware not in (None, "cpu"):
        return f"times of this CPU say nothing about {HARDWARE[place.hardware or '']}"
    return "no engine of theirs was timed here" if len(left) > 1 else "its engine was not timed here"


def _aside(left: Sequence[Option], place: Place) -> str:
    others = dict.fromkeys(option.format for option in left if not _comparable(option, place))
    return f" ({', '.join(others)}: their engines were not timed here)" if others else ""


def _smallest(left: Sequence[Option]) -> tuple[Option, str]:
    smallest = min(option.size for option in left)
    equal = [option for option in left if option.size <= CLOSE * smallest]
    size = format_value(smallest, "bytes")
    if len(left) == 1:
        return left[0], f"it is the only one ({size})"
    if len(equal) == 1:
        return equal[0], f"it is the smallest ({size})"
    equal.sort(key=lambda option: (_known(option.perplexity.value), option.name))
    best = equal[0]
    what = "all" if len(equal) == len(left) else f"the {len(equal)} smallest"
    perplexity = format_value(best.perplexity.value, "")
    return best, f"{what} have about {size}, and it has the lowest perplexity ({perplexity})"


def _known(value: float) -> float:
    """NaN is behind everything."""
    return value if value == value else float("inf")


def _reasons(
    chosen: Option, reason: str, left: Sequence[Option], options: Sequence[Option], place: Place
) -> list[str]:
    return [
        _verdict(chosen, reason, left, options, place),
        f"{_engine(chosen, place)} loads it; it takes {chosen.memory.sentence}.",
        *_alternatives(chosen, left),
        *_excluded(options, place),
    ]


def _verdict(
    chosen: Option, reason: str, left: Sequence[Option], options: Sequence[Option], place: Place
) -> str:
    where = place.sentence
    if len(left) == 1:
        runs = f" and runs{where}" if where else ""
        return f"Ship {chosen.name}: of {len(options)} rows the only one that keeps every budget{runs}."
    run = f" and run{where}" if where else ""
    return f"Ship {chosen.name}: of {len(options)} rows {len(left)} keep every budget{run}; {reason}."


def _engine(option: Option, place: Place) -> str:
    engines = FORMATS[option.format].hardware
    return engines.get(place.hardware or "") or " or ".join(dict.fromkeys(engines.values()))


def _alternatives(chosen: Option, left: Sequence[Option]) -> list[str]:
    """What the others that may be shipped are better at."""
    lines = []
    smallest = min(left, key=lambda option: option.size)
    if smallest.size * CLOSE < chosen.size:
        lines.append(_instead("Smaller", smallest, chosen))
    closest = min(left, key=lambda option: _known(option.perplexity.value))
    if closest.perplexity.below(chosen.perplexity):
        lines.append(_instead("Closer to FP32", closest, chosen))
    return lines


def _instead(word: str, other: Option, chosen: Option) -> str:
    return f"{word}: {other.name}, with {_profile(other)} against {_profile(chosen)}."


def _profile(option: Option) -> str:
    parts = [format_value(option.size, "bytes"), f"perplexity {format_value(option.perplexity.value, '')}"]
    if option.speed is not UNKNOWN:
        parts.append(_pace(option))
    return ", ".join(parts)


def _pace(option: Option) -> str:
    return f"{format_value(option.speed.value, 'x')} FP32's tokens/s"


def _excluded(options: Sequence[Option], place: Place) -> list[str]:
    """Why rows that keep every budget do not count, each reason once."""
    why: dict[str, list[str]] = {}
    for option in options:
        obstacle = _obstacle(option, place)
        if obstacle and not option.missed:
            why.setdefault(obstacle, []).append(option.name)
    return [f"Not counted: {', '.join(names)} ({reason})." for reason, names in why.items()]


def _closest(options: Sequence[Option], place: Place, advice: Sequence[str]) -> Recommendation:
    """Nothing fits: the row that misses least, what it misses, and what to try."""

    def distance(option: Option) -> tuple[bool, int, float, int]:
        return bool(_obstacle(option, place)), len(option.missed), option.excess, option.size

    best = min(options, key=distance)
    obstacle = _obstacle(best, place)
    first = f"Nothing keeps every budget{f' and runs{place.sentence}' if place.sentence else ''}."
    lines = [first, f"{best.name} comes closest: {' '.join(best.missed) or obstacle + '.'}"]
    if best.missed and obstacle:
        lines.append(f"Besides, {obstacle}.")
    return Recommendation(None, (*lines, *advice), best.name)
