"""Size, perplexity and speed: which rows are beaten by another one, beyond noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """A number and the interval that it lies in; a number without noise is its own interval."""

    value: float
    low: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> Spread:
        """Without noise."""
        return cls(value, value, value)

    def below(self, other: Spread) -> bool:
        """Whether it is smaller beyond noise: the intervals do not meet."""
        return self.high < other.low


# Where nothing was measured.
UNKNOWN = Spread(math.nan, -math.inf, math.inf)


@dataclass(frozen=True)
class Point:
    """A row: ``size`` in bytes (exact), ``perplexity``, and ``speed`` in any unit."""

    name: str
    size: int
    perplexity: Spread
    speed: Spread = UNKNOWN


def dominates(first: Point, second: Point) -> bool:
    """Whether ``first`` is better than ``second`` in something, beyond noise, and worse in nothing.

    Differences within the intervals are none. Rows with a speed and rows without one are not compared: the
    engine of the latter may be faster or slower. As size has no noise and "below" of intervals is an interval
    order on the other two, no circle of rows can dominate each other, so that a front is never empty.
    """
    if math.isnan(first.speed.value) != math.isnan(second.speed.value) or _worse(first, second):
        return False
    return _worse(second, first)


def _worse(first: Point, second: Point) -> bool:
    """Whether ``first`` is worse than ``second`` in anything, beyond noise."""
    return (
        first.size > second.size
        or second.perplexity.below(first.perplexity)
        or first.speed.below(second.speed)
    )


def dominated(points: Sequence[Point]) -> dict[str, str]:
    """Name of every row that is dominated → name of a row on the front that does, where there is one."""
    beaten = {p.name: [q.name for q in points if dominates(q, p)] for p in points}
    found = {}
    for name, by in beaten.items():
        if by:
            # The front's own rows say more; noise can make all that dominate it dominated themselves.
            found[name] = next((other for other in by if not beaten[other]), by[0])
    return found
