"""A comparison of language models in the terminal and on its pages: the same numbers, in every width."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edgeq.benchmarks.budgets import parse_budgets
from edgeq.benchmarks.measurement import Measurement, Measurements
from edgeq.benchmarks.options import BenchOptions
from edgeq.benchmarks.verdicts import judge
from edgeq.candidates import Candidate
from edgeq.cli.language_tables import language_view
from edgeq.comparison import Row
from edgeq.compiler.recipe import Recipe
from edgeq.compiler.weights.findings import Diagnosis
from edgeq.errors import TargetError
from edgeq.language.advice import calibration_sentences, what_to_try
from edgeq.language.choices import Axes
from edgeq.language.comparison import LanguageComparison
from edgeq.language.measures import option_of, point_of, speed
from edgeq.language.pages import render_html, render_markdown, to_document
from edgeq.language.pareto import UNKNOWN, Point, Spread, dominated
from edgeq.language.recommendation import Place, recommend
from edgeq.language.run_memory import RunMemory
from edgeq.language.scatter import BOX_HEIGHT, BOX_WIDTH, Axis, Mark, place_numbers, trade_charts
from edgeq.manifest import FileEntry, Measured
from edgeq.result import CompileResult
from tests.support.manifests import MACHINE, manifest

BUDGETS = parse_budgets(["perplexity <= +0.5", "size <= 6MB"])


def row(folder: Path, target: str, method: str, perplexity: float, size: int, **options: Any) -> Row:
    """A measured artefact; its interval is 0.1 to both sides."""
    found, difference = Measurements(), perplexity - 53
    found.add(
        Measurement("size", size, 16e6, "bytes", False),
        Measurement(
            "perplexity", perplexity, 53.0, "", False, (difference - 0.1, difference + 0.1), "difference"
        ),
        Measurement("kl", 0.012, None, "", False),
    )
    pace = options.pop("speed", None)
    if pace is not None:
        span = (pace - 1, pace + 1)
        found.add(Measurement("generation_tokens_per_s", pace, 100.0, "tokens/s", True, span))
    recipe = Recipe(scheme="int4-weight", weight_method=method, block_size=32)  # type: ignore[arg-type]
    measured = Measured.of(found, judge(BUDGETS, found), machine=MACHINE, options=BenchOptions().to_json())
    made = manifest().model_copy(
        update={
            "target": target, "recipe": recipe, "measured": measured, "notes": ["a note"],
            "files": [FileEntry(path="model.gguf", bytes=size, sha256="a" * 64)],
        }
    )  # fmt: skip
    text = options.pop("calibration", None)
    variant = f"{method}-4bit-g32" + (f"-{text}" if text else "")
    result = CompileResult(folder / f"m-{variant}-{target}", made, found, measured.verdicts, None)
    return Row(Candidate(target, {}, variant, recipe, text), result=result)


@pytest.fixture
def comparison(tmp_path: Path) -> LanguageComparison:
    rows = (
        row(tmp_path, "onnxruntime-genai", "rtn", 53.9, 5_000_000, speed=150.0),
        row(tmp_path, "onnxruntime-genai", "gptq", 53.2, 5_000_000, speed=150.5, calibration="books"),
        row(tmp_path, "onnxruntime-genai", "gptq", 53.45, 5_000_000, speed=149.5, calibration="code"),
        row(tmp_path, "hf-awq", "awq", 53.1, 4_800_000),
        Row(
            Candidate("vllm", {}, "nf4-4bit-g32"), error=TargetError("no <NF4>.", fix="Leave."), refused=True
        ),
    )
    memory = {r.candidate.name: RunMemory(r.result.manifest.size, 1_000_000, 512) for r in rows if r.result}
    options = [o for r in rows if r.result and (o := option_of(r, memory[r.candidate.name]))]
    place = Place("cpu", 8_000_000)
    return LanguageComparison(
        "m<1>", tmp_path / "m", rows, recommend(options, place), ("books", "code"),
        tuple(map(str, BUDGETS)), place, memory,
        dominated([p for r in rows if (p := point_of(r))]), {"vllm stores weights of 4 or 8 bits": 2},
    )  # fmt: skip


def shown(comparison: LanguageComparison, width: int) -> list[str]:
    console = Console(width=width, record=True, quiet=True)
    with console.capture() as capture:
        console.quiet = False
        console.print(language_view(comparison, said=()))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_the_table_word_by_word(comparison: LanguageComparison) -> None:
    lines = [re.split(r"  +", line.strip()) for line in shown(comparison, 400)[1:8]]
    assert lines[0] == [
        "format", "method", "bits", "group", "calibration", "size", "perplexity", "- FP32 (95 %)", "KL",
        "generation", "x FP32", "runs in", "front", "budgets",
    ]  # fmt: skip
    assert lines[1] == ["FP32", "16 MB", "53", "100 tokens/s"]
    assert lines[2] == [
        "✗", "1", "onnxruntime-genai", "rtn", "4", "32", "5 MB", "53.9", "+0.9 (+0.8 to +1)", "0.012",
        "150 tokens/s", "1.50x", "6 MB", "beaten by 2", "1 of 2 kept",
    ]  # fmt: skip
    assert lines[3] == [
        "✓", "2", "onnxruntime-genai", "gptq", "4", "32", "books", "5 MB", "53.2", "+0.2 (+0.1 to +0.3)",
        "0.012", "150.5 tokens/s", "1.50x", "6 MB", "yes", "2 of 2 kept",
    ]  # fmt: skip
    assert lines[5][:8] == ["✓", "4", "hf-awq", "awq", "4", "32", "4.8 MB", "53.1"]
    assert lines[5][-3:] == ["5.8 MB", "yes", "2 of 2 kept"]
    assert lines[6] == ["-", "5", "vllm", "nf4", "refused"]


def test_the_recommendation_follows_the_table(comparison: LanguageComparison) -> None:
    assert comparison.recommendation.name == "onnxruntime-genai (gptq-4bit-g32-books)"
    assert comparison.exit_code == 0
    lines = shown(comparison, 400)
    start = next(i for i, line in enumerate(lines) if line.startswith("Ship "))
    assert lines[start].startswith(
        "Ship onnxruntime-genai (gptq-4bit-g32-books): of 4 rows 3 keep every budget"
    )
    assert "vllm (nf4-4bit-g32): no <NF4>. Leave." in lines
    assert "note: 2 combinations left out: vllm stores weights of 4 or 8 bits (2)." in lines
    assert any(line.startswith("note: hf-awq: quality is that of the stored weights") for line in lines)


@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
def test_no_line_is_wider_than_the_terminal_and_what_is_left_out_is_said(
    comparison: LanguageComparison, width: int
) -> None:
    lines = shown(comparison, width)
    assert max(map(len, lines)) <= width
    if "KL" not in " ".join(lines[:3]).split():
        assert any("not shown for want of width" in line for line in lines)


def test_pages_hold_the_same(comparison: LanguageComparison) -> None:
    page = render_html(comparison)
    assert page.count("<circle") == 7
    assert "m&lt;1&gt;" in page
    assert "no &lt;NF4&gt;" in page
    assert 'href="m-gptq-4bit-g32-books-onnxruntime-genai/report.html"' in page
    text = render_markdown(comparison)
    assert "| 2 | onnxruntime-genai | gptq | 4 | 32 | books | 5 MB | 53.2 |" in text
    document = json.loads(json.dumps(to_document(comparison), allow_nan=False))
    assert document["recommended"] == "onnxruntime-genai (gptq-4bit-g32-books)"
    assert [one["state"] for one in document["rows"]] == ["compiled"] * 4 + ["refused"]
    assert document["rows"][0]["beaten_by"] == "onnxruntime-genai (gptq-4bit-g32-books)"
    assert document["rows"][0]["run_memory"] == {"weights": 5_000_000, "cache": 1_000_000, "context": 512}


def test_the_choice_of_the_text_is_told_with_what_it_has_changed(comparison: LanguageComparison) -> None:
    [told] = calibration_sentences(comparison.rows, comparison.recommendation.name, comparison.calibrations)
    assert told == (
        "Calibration of onnxruntime-genai (gptq-4bit-g32): perplexity is lowest with books (+0.25 with code)."
    )
    assert calibration_sentences(comparison.rows, None, ("books",)) == []


def test_advice_names_what_was_not_tried(comparison: LanguageComparison) -> None:
    assert what_to_try(comparison.rows, Axes(bits=(4,))) == ["Try --bits 8."]
    assert what_to_try(comparison.rows[3:4], Axes(bits=(8,))) == []
    first = comparison.rows[0]
    assert first.result is not None
    found = Diagnosis(layers=(), overrides=("model.layers.0.mlp.down_proj=int8",))
    first.result = replace(
        first.result, manifest=first.result.manifest.model_copy(update={"diagnosis": found})
    )
    assert what_to_try([first], Axes(bits=(8,))) == [
        "Try 8 bits for the layers that lose most, --override 'model.layers.0.mlp.down_proj=int8'."
    ]


def test_nothing_to_ship_is_exit_code_1(comparison: LanguageComparison) -> None:
    found = replace(comparison, recommendation=replace(comparison.recommendation, name=None))
    assert found.exit_code == 1
    refused = replace(found, rows=comparison.rows[4:])
    assert refused.exit_code == 4


def marks(count: int) -> list[Mark]:
    """Points in clusters, as widths in bits make them."""
    found = []
    for i in range(count):
        bits = (2, 3, 4, 8)[i % 4]
        perplexity = 53 + {2: 30, 3: 5, 4: 0.8, 8: 0.05}[bits] * (1 + (i * 7 % 11) / 40)
        pace = 900 - 60 * bits + i % 5
        quality = Spread(perplexity, perplexity - 0.2, perplexity + 0.2)
        found.append(Point(str(i), 1_500_000 + 500_000 * bits, quality, Spread(pace, pace - 5, pace + 5)))
    beaten = dominated(found)
    return [Mark(i + 1, point, point.name not in beaten) for i, point in enumerate(found)]


def test_numbers_of_thirty_points_do_not_hide_each_other() -> None:
    charts = trade_charts(marks(30), 53.0)
    assert len(charts) == 2
    for chart in charts:
        spots = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', chart)]
        assert len(spots) == 30
        boxes = place_numbers(spots)
        for i, box in enumerate(boxes):
            for other in boxes[:i]:
                assert abs(box[0] - other[0]) >= BOX_WIDTH or abs(box[1] - other[1]) >= BOX_HEIGHT


def test_points_stand_where_their_numbers_say() -> None:
    axis = Axis.over([1, 100], 0, 460)
    assert axis.logarithmic
    assert axis.at(10) == pytest.approx(230)
    assert axis.ticks() == [1, 2, 5, 10, 20, 50, 100]
    linear = Axis.over([10, 20], 0, 116)
    assert (linear.at(10), linear.at(20)) == pytest.approx((8, 108))
    assert linear.ticks() == [10, 12.5, 15, 17.5, 20] or 10 in linear.ticks()
    assert Axis.over([5, 5], 0, 10).at(5) == pytest.approx(5)


def _ticks_beside(perplexities: Sequence[float]) -> list[str]:
    """What the axis of perplexities says beside points above and below FP32's 50."""
    found = [
        Mark(i, Point(str(i), 1000 + i, Spread.exactly(value), UNKNOWN), True)
        for i, value in enumerate(perplexities)
    ]
    [chart] = trade_charts(found, 50.0)
    assert "perplexity - FP32" in chart
    return re.findall(r'text-anchor="end">([^<]+)<', chart)


def test_less_than_fp32_is_drawn_as_less() -> None:
    assert "-4" in _ticks_beside([44, 46])
    assert _ticks_beside([49.9, 50.1])[0].startswith("-0.1")


def test_what_hardly_differs_from_fp32_does_not_fill_the_axis() -> None:
    assert _ticks_beside([50.0005, 50.15]) == ["0", "0.05", "0.1", "0.15"]
    assert _ticks_beside([50.0005, 50.25]) == ["0", "0.1", "0.2"]
    assert _ticks_beside([50.0005, 51]) == ["≤ 0.025", "0.05", "0.1", "0.2", "0.5", "1"]


def test_on_a_logarithmic_axis_what_is_no_worse_than_fp32_stands_at_the_least_value() -> None:
    ticks = _ticks_beside([49.99, 50.5, 80])
    assert ticks[0] == "≤ 0.025"
    assert not any(tick.startswith("-") for tick in ticks)


def test_speed_is_a_multiple_of_what_fp32_reached_in_the_same_turns() -> None:
    def found(*interval: float) -> Spread:
        measurements = Measurements()
        span = (interval[0], interval[1]) if interval else None
        measurements.add(Measurement("generation_tokens_per_s", 50.0, 10.0, "tokens/s", True, span))
        return speed(measurements)

    assert found(45.0, 60.0) == Spread(5, pytest.approx(4.05), pytest.approx(7.2))
    vague = found()
    assert vague.value == 5
    assert not vague.below(Spread.exactly(7))
    assert vague.below(Spread.exactly(8))
    assert speed(Measurements()) is UNKNOWN


def test_without_rows_there_is_no_picture() -> None:
    assert trade_charts([], None) == []
    [only] = trade_charts([replace(marks(1)[0])], None)
    assert only.count("<circle") == 1
