"""Which rows are beaten: real differences count, noise does not, and something is always left."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.language.pareto import UNKNOWN, Point, Spread, dominated, dominates


@st.composite
def spreads(draw: st.DrawFn) -> Spread:
    if draw(st.booleans()) and draw(st.booleans()):
        return UNKNOWN
    value = draw(st.integers(0, 12))
    return Spread(value, value - draw(st.integers(0, 4)), value + draw(st.integers(0, 4)))


@st.composite
def points(draw: st.DrawFn) -> list[Point]:
    count = draw(st.integers(1, 9))
    return [Point(str(i), draw(st.integers(1, 4)), draw(spreads()), draw(spreads())) for i in range(count)]


@given(points())
@settings(deadline=None, max_examples=300)
def test_something_is_on_the_front_and_what_is_beaten_is_beaten_by_another(found: list[Point]) -> None:
    beaten = dominated(found)
    by_name = {point.name: point for point in found}
    assert len(beaten) < len(found)
    for name, by in beaten.items():
        assert dominates(by_name[by], by_name[name])
        assert not dominates(by_name[name], by_name[by])
    for point in set(by_name) - set(beaten):
        assert not any(dominates(other, by_name[point]) for other in found)


@given(points())
@settings(deadline=None, max_examples=200)
def test_wider_intervals_never_make_a_row_beat_another(found: list[Point]) -> None:
    everywhere = Spread(0, float("-inf"), float("inf"))
    for first in found:
        for second in found:
            speed = UNKNOWN if first.speed is UNKNOWN else everywhere
            vague = replace(second, perplexity=everywhere, speed=speed)
            assert dominates(first, vague) == (first.size < second.size)


SMALL = Point("small", 10, Spread(20, 19, 21), Spread(100, 99, 101))


def test_a_difference_in_the_noise_does_not_beat() -> None:
    other = Point("other", 10, Spread(20.5, 19.5, 21.5), Spread(99, 98, 100))
    assert dominated([SMALL, other]) == {}


def test_worse_in_one_and_equal_in_the_rest_is_beaten() -> None:
    larger = replace(SMALL, name="larger", size=11)
    slower = replace(SMALL, name="slower", speed=Spread(90, 89, 91))
    worse = replace(SMALL, name="worse", perplexity=Spread(22, 21.5, 22.5))
    beaten = dominated([SMALL, larger, slower, worse])
    assert beaten == {"larger": "small", "slower": "small", "worse": "small"}


def test_better_in_one_thing_is_on_the_front() -> None:
    close = Point("close", 12, Spread(15, 14, 16), Spread(80, 79, 81))
    assert dominated([SMALL, close]) == {}


def test_rows_without_a_speed_are_compared_among_themselves() -> None:
    untimed = Point("untimed", 11, Spread(25, 24, 26))
    smaller = Point("smaller", 9, Spread(15, 14, 16))
    assert dominated([SMALL, untimed]) == {}
    assert dominated([SMALL, untimed, smaller]) == {"untimed": "smaller"}
