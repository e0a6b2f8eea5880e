"""The report's pictures: inline SVG, coloured by the style sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from edgeq.benchmarks.measurement import Measurement
from edgeq.benchmarks.units import format_value
from edgeq.report_html import Html, el, join

WIDTH = 460
_BAR_LABEL, _BAR_VALUE = 100, 80
_PLOT_HEIGHT = 190
_TICKS = 4


def cost_bars(measurements: Sequence[Measurement]) -> Html | None:
    """A pair of bars, FP32 and artefact, for every cost that has both; the longer one fills the width."""
    shown = [m for m in measurements if m.baseline and math.isfinite(m.value + m.baseline)]
    if not shown:
        return None
    bars = [_pair(m, top=i * 46) for i, m in enumerate(shown)]
    return _svg(len(shown) * 46, *bars, label="Costs of FP32 and artefact")


def _pair(found: Measurement, top: int) -> Html:
    baseline = found.baseline or 0.0
    longest = max(baseline, found.value) or 1.0
    label = el("text", found.metric.replace("_", " "), x="0", y=str(top + 22), class_="strong")
    return join(
        (
            label,
            _bar(baseline, longest, top + 4, found.unit, "base"),
            _bar(found.value, longest, top + 21, found.unit, "ours"),
        )
    )


def _bar(value: float, longest: float, top: int, unit: str, kind: str) -> Html:
    room = WIDTH - _BAR_LABEL - _BAR_VALUE
    length = max(room * value / longest, 1.0)
    rect = el("rect", x=str(_BAR_LABEL), y=str(top), width=f"{length:.1f}", height="14", rx="2", class_=kind)
    text = el("text", format_value(value, unit), x=f"{_BAR_LABEL + length + 6:.1f}", y=str(top + 11))
    return join((rect, text))


def latency_histogram(found: Measurement) -> Html | None:
    """The distribution of the time of one inference, on a logarithmic axis; None without the counts."""
    histogram: Mapping[str, Any] | None = found.detail.get("histogram")
    if not histogram:
        return None
    edges: list[float] = histogram["edges"]
    series = [
        (name, kind) for name, kind in (("baseline", "base"), ("artefact", "ours")) if name in histogram
    ]
    areas = [_area(histogram[name], kind) for name, kind in series]
    return _svg(_PLOT_HEIGHT + 24, *areas, _axis(edges), label="Distribution of the latency")


def _area(counts: Sequence[int], kind: str) -> Html:
    """A step outline of the counts, as high as the plot at its highest bin."""
    highest = max(counts) or 1
    step = WIDTH / len(counts)
    points = [f"M0,{_PLOT_HEIGHT}"]
    for i, count in enumerate(counts):
        y = _PLOT_HEIGHT - (_PLOT_HEIGHT - 6) * count / highest
        points.append(f"L{i * step:.1f},{y:.1f} L{(i + 1) * step:.1f},{y:.1f}")
    points.append(f"L{WIDTH},{_PLOT_HEIGHT} Z")
    return el("path", d=" ".join(points), class_=f"{kind} area")


def _axis(edges: Sequence[float]) -> Html:
    line = el("line", x1="0", x2=str(WIDTH), y1=str(_PLOT_HEIGHT), y2=str(_PLOT_HEIGHT), class_="axis")
    ticks = [_tick(edges, i) for i in range(_TICKS + 1)]
    return join((line, *ticks))


def _tick(edges: Sequence[float], number: int) -> Html:
    share = number / _TICKS
    # Bins are equally wide in the logarithm, so the tick's value is between the ends in the same way.
    value = edges[0] * (edges[-1] / edges[0]) ** share
    anchor = "start" if number == 0 else "end" if number == _TICKS else "middle"
    return el(
        "text", format_value(float(f"{value:.2g}"), "s"), x=f"{share * WIDTH:.1f}",
        y=str(_PLOT_HEIGHT + 17), text_anchor=anchor,
    )  # fmt: skip


def _svg(height: int, *children: Html, label: str) -> Html:
    return el("svg", *children, viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=label)


def legend(has_baseline: bool) -> Html:
    """Which colour is which."""
    base = (el("i", class_="base"), el("span", "FP32")) if has_baseline else ()
    return el("p", *base, el("i", class_="ours"), el("span", "artefact"), class_="legend")
