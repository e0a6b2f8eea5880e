"""Rows as points: perplexity over size, and over speed. Inline SVG, coloured by the style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edgeq.benchmarks.units import format_value
from edgeq.language.pareto import UNKNOWN, Point, Spread
from edgeq.report_html import Html, el, join

WIDTH, HEIGHT = 460, 330
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 12, 40
# Values that differ by more are drawn on a logarithmic axis.
LOGARITHMIC = 4.0
# The same of what perplexities have above FP32's: differences near 0 are noise.
LOGARITHMIC_HEIGHTS = 20.0
# Of FP32's perplexity: less above it (or below it) is drawn as about so much on a logarithmic axis.
LEAST = 1e-3
# Of the box of a number beside its point.
BOX_WIDTH, BOX_HEIGHT = 17.0, 13.0
# Places of the number around the point, in the order of preference; then further away.
_PLACES = ((1, 0), (0, -1), (-1, 0), (0, 1), (1, -1), (-1, -1), (1, 1), (-1, 1))
_RINGS = 9


@dataclass(frozen=True)
class Mark:
    """A point of the picture: its number in the table, whether no other row beats it, and if it is chosen."""

    number: int
    point: Point
    front: bool
    chosen: bool = False


@dataclass(frozen=True)
class Axis:
    """Values → pixels, linear or logarithmic, with a margin."""

    low: float
    high: float
    start: float
    end: float

    # Whether equal ratios are equal lengths.
    logarithmic: bool = False

    @classmethod
    def over(
        cls, values: Sequence[float], start: float, end: float, *, logarithmic: bool | None = None
    ) -> Axis:
        """An axis that holds all values; ``logarithmic`` None: where they differ by much."""
        low, high = min(values), max(values)
        if logarithmic is None:
            logarithmic = low > 0 and high / low > LOGARITHMIC
        if logarithmic:
            margin = (high / low) ** 0.06
            return cls(low / margin, high * margin, start, end, logarithmic=True)
        margin = 0.08 * (high - low) or abs(high) * 0.05 or 1.0
        return cls(low - margin, high + margin, start, end)

    def at(self, value: float) -> float:
        """The pixel of a value."""
        if self.logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values inside."""
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            found = [m * 10.0**p for p in powers for m in (1, 2, 5)]
            found = [value for value in found if self.low <= value <= self.high]
            if len(found) >= 2:
                return found
        step = _round_step((self.high - self.low) / 4)
        first = math.ceil(self.low / step)
        return [i * step for i in range(first, math.floor(self.high / step) + 1)]


def _round_step(size: float) -> float:
    power = 10.0 ** math.floor(math.log10(size))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= size)


def trade_charts(marks: Sequence[Mark], baseline: float | None) -> list[Html]:
    """Perplexity over size, and over speed where that is known of two rows or more."""
    if not marks:
        return []
    charts = [_chart(marks, lambda p: Spread.exactly(p.size), "bytes", "size", baseline)]
    timed = [mark for mark in marks if mark.point.speed is not UNKNOWN]
    if len(timed) > 1:
        charts.append(
            _chart(timed, lambda p: p.speed, "x", "generated tokens/s as a multiple of FP32's", baseline)
        )
    return charts


def _chart(
    marks: Sequence[Mark], across: Callable[[Point], Spread], unit: str, title: str, baseline: float | None
) -> Html:
    heights = _Heights.of([mark.point.perplexity for mark in marks], baseline)
    y = heights.axis()
    x = Axis.over([across(mark.point).value for mark in marks], LEFT, WIDTH - RIGHT)
    spots = [
        (x.at(across(mark.point).value), y.at(height.value))
        for mark, height in zip(marks, heights.spreads, strict=True)
    ]
    boxes = place_numbers(spots)
    parts: list[Html | None] = [*_frame(x, y, unit, title, baseline, heights.least)]
    parts += [_bar(height, spot, y) for height, spot in zip(heights.spreads, spots, strict=True)]
    # The front is drawn last, so that nothing hides it.
    order = sorted(range(len(marks)), key=lambda i: (marks[i].chosen, marks[i].front))
    parts += [_mark(marks[i], spots[i], boxes[i], across(marks[i].point), unit) for i in order]
    label = f"Perplexity over {title} of {len(marks)} rows"
    return el("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=label)


@dataclass(frozen=True)
class _Heights:
    """Perplexities less FP32's; ``least``: what stands for itself and all below, on a logarithmic axis."""

    spreads: Sequence[Spread]
    logarithmic: bool | None = None
    least: float | None = None

    @classmethod
    def of(cls, perplexities: Sequence[Spread], baseline: float | None) -> _Heights:
        """8 bits and 2 bits differ by orders of magnitude in what FP32 does not have, not in perplexity."""
        if baseline is None:
            return cls(perplexities)
        above = [Spread(p.value - baseline, p.low - baseline, p.high - baseline) for p in perplexities]
        least, values = _round_step(LEAST * baseline / 2), [height.value for height in above]
        lowest = min(values)
        if max(values) <= LOGARITHMIC_HEIGHTS * max(abs(lowest), least):
            return cls(above, logarithmic=False)
        if lowest >= least:
            return cls(above, logarithmic=True)
        raised = [Spread(*(max(end, least) for end in (h.value, h.low, h.high))) for h in above]
        return cls(raised, logarithmic=True, least=least)

    def axis(self) -> Axis:
        """Upwards; it holds all points, and their intervals too where it is linear."""
        values = [height.value for height in self.spreads]
        if not self.logarithmic:
            ends = [end for height in self.spreads for end in (height.low, height.high)]
            values += [end for end in ends if math.isfinite(end)]
        return Axis.over(values, HEIGHT - BOTTOM, TOP + 14, logarithmic=self.logarithmic)


def _frame(
    x: Axis, y: Axis, unit: str, title: str, baseline: float | None, least: float | None
) -> Iterator[Html]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    yield el("line", x1=_n(LEFT), x2=_n(right), y1=_n(bottom), y2=_n(bottom), class_="axis")
    yield el("line", x1=_n(LEFT), x2=_n(LEFT), y1=_n(TOP), y2=_n(bottom), class_="axis")
    for value in x.ticks():
        text = format_value(value, unit if unit == "bytes" else "")
        yield el("text", text, x=_n(x.at(value)), y=_n(bottom + 16), text_anchor="middle")
    if least is not None:
        yield _tick(f"≤ {format_value(least, '')}", y.at(least))
    for value in y.ticks():
        if least is None or abs(y.at(value) - y.at(least)) > BOX_HEIGHT:
            yield _tick(format_value(value, ""), y.at(value))
    yield el("text", title, x=_n((LEFT + right) / 2), y=_n(HEIGHT - 6), text_anchor="middle", class_="strong")
    above = "" if baseline is None else f" - FP32's {format_value(baseline, '')}"
    yield el("text", f"perplexity{above}", x=_n(4), y=_n(TOP), class_="strong")


def _tick(text: str, height: float) -> Html:
    return el("text", text, x=_n(LEFT - 6), y=_n(height + 4), text_anchor="end")


def _bar(height: Spread, spot: tuple[float, float], y: Axis) -> Html | None:
    """The interval of the perplexity."""
    if not math.isfinite(height.low + height.high) or height.low == height.high:
        return None
    low, high = max(height.low, y.low), min(height.high, y.high)
    return el("line", x1=_n(spot[0]), x2=_n(spot[0]), y1=_n(y.at(low)), y2=_n(y.at(high)), class_="axis")


def _mark(mark: Mark, spot: tuple[float, float], box: tuple[float, float], across: Spread, unit: str) -> Html:
    kind = "ours" if mark.front else "base"
    told = (
        f"{mark.number}: {mark.point.name}, {format_value(across.value, unit)}, "
        f"perplexity {format_value(mark.point.perplexity.value, '')}"
    )
    dot = el(
        "circle", el("title", told), cx=_n(spot[0]), cy=_n(spot[1]), r="7" if mark.chosen else "4.5",
        class_=kind,
    )  # fmt: skip
    centre = (box[0] + BOX_WIDTH / 2, box[1] + BOX_HEIGHT / 2)
    far = math.dist(centre, spot) > 1.5 * BOX_WIDTH
    leader = el("line", x1=_n(spot[0]), y1=_n(spot[1]), x2=_n(centre[0]), y2=_n(centre[1]), class_="axis")
    text = el(
        "text", str(mark.number), x=_n(centre[0]), y=_n(centre[1] + 4), text_anchor="middle",
        class_="strong" if mark.front else None,
    )  # fmt: skip
    return join((leader if far else None, dot, text))


def place_numbers(spots: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The upper left corner of each point's number: beside the point, over no other point or number."""
    boxes: list[tuple[float, float]] = []
    for spot in spots:
        boxes.append(next((box for box in _around(spot) if _free(box, boxes, spots)), _last(spot)))
    return boxes


def _around(spot: tuple[float, float]) -> Iterator[tuple[float, float]]:
    for ring in range(_RINGS):
        for across, down in _PLACES:
            x = spot[0] + across * (13 + 14 * ring) - BOX_WIDTH / 2
            y = spot[1] + down * (11 + 12 * ring) - BOX_HEIGHT / 2
            if LEFT <= x <= WIDTH - BOX_WIDTH and 0 <= y <= HEIGHT - BOTTOM - BOX_HEIGHT:
                yield x, y


def _last(spot: tuple[float, float]) -> tuple[float, float]:
    return spot[0] + 8, spot[1] - BOX_HEIGHT / 2


def _free(
    box: tuple[float, float], boxes: Sequence[tuple[float, float]], spots: Sequence[tuple[float, float]]
) -> bool:
    apart = all(abs(box[0] - b[0]) >= BOX_WIDTH or abs(box[1] - b[1]) >= BOX_HEIGHT for b in boxes)
    return apart and not any(
        box[0] - 4 < x < box[0] + BOX_WIDTH + 4 and box[1] - 4 < y < box[1] + BOX_HEIGHT + 4 for x, y in spots
    )


def _n(value: float) -> str:
    return f"{value:.1f}"
