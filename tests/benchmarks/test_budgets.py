from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.benchmarks.budgets import Budget, parse_budget, parse_budgets
from edgeq.benchmarks.metric_info import QUALITIES, RESOURCES, known_metrics
from edgeq.benchmarks.metrics import METRIC_NAMES, get_metric
from edgeq.benchmarks.units import units_of
from edgeq.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "kind", "bound", "canonical"),
    [
        ("size<=100MB", "absolute", 100e6, "size <= 100MB"),
        ("  size\t<=  1.5 MiB ", "absolute", 1.5 * 2**20, "size <= 1.5MiB"),
        ("size <= 2 gb", "absolute", 2e9, "size <= 2GB"),
        ("size <= 4096B", "absolute", 4096, "size <= 4096B"),
        ("size <= 50%", "relative", 0.5, "size <= 50%"),
        ("f1 >= 95%", "relative", 0.95, "f1 >= 95%"),
        ("top1>=0.70", "absolute", 0.70, "top1 >= 0.7"),
        ("top1 >= .7", "absolute", 0.7, "top1 >= 0.7"),
        ("top1 >= -0.005", "difference", -0.005, "top1 >= -0.005"),
        ("top1 >= +0.01", "difference", 0.01, "top1 >= +0.01"),
        ("perplexity <= +0.5", "difference", 0.5, "perplexity <= +0.5"),
        ("perplexity <= - 1", "difference", -1, "perplexity <= -1"),
        ("perplexity <= 105%", "relative", 1.05, "perplexity <= 105%"),
        ("perplexity <= 20", "absolute", 20, "perplexity <= 20"),
        ("latency_p95 <= 20ms", "absolute", 0.02, "latency_p95 <= 20ms"),
        ("latency_p50 <= 120µs", "absolute", 120e-6, "latency_p50 <= 120us"),
        ("latency_p99≤1e-1s", "absolute", 0.1, "latency_p99 <= 0.1s"),
        ("speedup >= 1.5x", "absolute", 1.5, "speedup >= 1.5x"),
        ("speedup >= 2", "absolute", 2, "speedup >= 2x"),
        ("peak_memory <= 2GB", "absolute", 2e9, "peak_memory <= 2GB"),
        ("load_time <= 500 ms", "absolute", 0.5, "load_time <= 500ms"),
        ("kl <= 0.02", "absolute", 0.02, "kl <= 0.02"),
        ("kl_p99 <= 0.2", "absolute", 0.2, "kl_p99 <= 0.2"),
        ("top1_agreement >= 97%", "absolute", 0.97, "top1_agreement >= 97%"),
        ("generation_tokens_per_s >= 20", "absolute", 20, "generation_tokens_per_s >= 20tokens/s"),
        ("generation_tokens_per_s >= 120%", "relative", 1.2, "generation_tokens_per_s >= 120%"),
        ("ttft <= 200ms", "absolute", 0.2, "ttft <= 200ms"),
        ("lm_eval/mytask/acc >= 99%", "relative", 0.99, "lm_eval/mytask/acc >= 99%"),
        ("lm_eval/mytask/own <= +2", "difference", 2, "lm_eval/mytask/own <= +2"),
        ("sqnr >= 30", "absolute", 30, "sqnr >= 30dB"),
        ("mypkg.metrics:iou >= 0.9", "absolute", 0.9, "mypkg.metrics:iou >= 0.9"),
        ("mypkg.metrics:error <= 110%", "relative", 1.1, "mypkg.metrics:error <= 110%"),
    ],
)
def test_parses(text: str, kind: str, bound: float, canonical: str) -> None:
    budget = parse_budget(text)
    assert (budget.kind, str(budget)) == (kind, canonical)
    assert budget.bound == pytest.approx(bound, rel=1e-12)
    assert parse_budget(str(budget)) == budget


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "top1 >= 70",
            "Budget 'top1 >= 70': top1 is between 0 and 1. "
            "Write top1 >= 0.7, or top1 >= 70% for percent of the FP32 baseline.",
        ),
        (
            "top1_agreement >= 0.97",
            "Budget 'top1_agreement >= 0.97': 0.97 without a unit could mean 0.97 % or 97 %. "
            "Write top1_agreement >= 97%.",
        ),
        (
            "kl <= +0.02",
            "Budget 'kl <= +0.02': kl already compares with the baseline, so a difference from it means "
            "nothing. Write kl <= 0.02.",
        ),
        (
            "top1 >= -0.5%",
            "Budget 'top1 >= -0.5%': -0.5% could mean a share of the baseline or percentage points. "
            "Write top1 >= 99.5% (of the baseline) or top1 >= -0.005 (a difference).",
        ),
        (
            "size >= 100MB",
            "Budget 'size >= 100MB': size is better when lower, so a budget on it takes <=. "
            "Write size <= 100MB.",
        ),
        (
            "top1 <= 0.9",
            "Budget 'top1 <= 0.9': top1 is better when higher, so a budget on it takes >=. "
            "Write top1 >= 0.9.",
        ),
        (
            "latency <= 3ms",
            "Unknown metric 'latency' in a budget. "
            "Did you mean latency_p50 or latency_p90 or latency_p95 or latency_p99 or latency_mean?",
        ),
        ("tpo1 >= 0.9", "Unknown metric 'tpo1' in a budget. Did you mean top1 or top5?"),
        (
            "size <= 100",
            "Budget 'size <= 100': the number has no unit. "
            "Write size <= 100MB; units are B, KB, MB, GB, KiB, MiB, GiB.",
        ),
        (
            "size <= 5ms",
            "Budget 'size <= 5ms': 'ms' is no unit of size. "
            "Write size <= 100MB; units of size are B, KB, MB, GB, KiB, MiB, GiB.",
        ),
        (
            "top1 >= 0.7x",
            "Budget 'top1 >= 0.7x': 'x' is no unit of top1. Write top1 >= 0.70; it has no unit.",
        ),
        (
            "size <= -5MB",
            "Budget 'size <= -5MB': size takes no difference from the baseline and is never negative. "
            "Write size <= 100MB or size <= 50%.",
        ),
        (
            "speedup >= 150%",
            "Budget 'speedup >= 150%': speedup already compares with the baseline, so percent of it means "
            "nothing. Write speedup >= 1.5x.",
        ),
        (
            "sqnr >= -3",
            "Budget 'sqnr >= -3': sqnr already compares with the baseline, so a difference from it means "
            "nothing. Write sqnr >= 30dB.",
        ),
        ("size < 5MB", "Budget 'size < 5MB': '<' at position 6 is no operator of budgets. Write <= or >=."),
        (
            "size == 5MB",
            "Budget 'size == 5MB': '==' at position 6 is no operator of budgets. Write <= or >=.",
        ),
        (
            "size <= nan",
            "Budget 'size <= nan': 'nan' is no number with a unit (position 9). "
            "Write for example size <= 100MB.",
        ),
        (
            "perplexity <= 1,5",
            "Budget 'perplexity <= 1,5': '1,5' is no number with a unit (position 15). "
            "Write for example perplexity <= 1.05.",
        ),
        (
            "size <=",
            "Budget 'size <=': a number is missing (position 8). Write for example size <= 100MB.",
        ),
        (
            "top1 >= 1e999",
            "Budget 'top1 >= 1e999': 1e999 is too large. Write for example top1 >= 0.70.",
        ),
        (
            "mine:metric >= 5MB",
            "Budget 'mine:metric >= 5MB': 'MB': your own metrics have no units. Write the number alone.",
        ),
    ],
)
def test_refuses_in_words(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_budget(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["", "size", "<= 5", "size 100MB", "≤", "size <= <= 5MB", "a b <= 5"])
def test_refuses_what_is_no_budget(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_budget(text)


def test_refuses_what_is_no_text() -> None:
    with pytest.raises(ConfigError, match="A budget is text, not int"):
        parse_budget(100)  # type: ignore[arg-type]


def test_parses_several_in_order() -> None:
    assert [b.metric for b in parse_budgets(["top1 >= 99%", "size <= 1MB"])] == ["top1", "size"]


@st.composite
def budgets(draw: st.DrawFn) -> Budget:
    info = draw(st.sampled_from(list(known_metrics().values())))
    kinds = ["absolute"]
    if info.has_baseline:
        kinds += ["relative"] if info.resource else ["relative", "difference"]
    kind = draw(st.sampled_from(kinds))
    top = 1.0 if info.unit == "fraction" and kind == "absolute" else 1e12
    number = draw(st.floats(0, top, allow_nan=False))
    if kind == "difference":
        number = draw(st.sampled_from([1, -1])) * number
    unit = "%" if kind == "relative" else draw(st.sampled_from(units_of(info.unit) or [""]))
    return Budget(info.name, ">=" if info.higher_is_better else "<=", kind, number, unit)  # type: ignore[arg-type]


@given(budgets())
def test_text_round_trip(budget: Budget) -> None:
    assert parse_budget(str(budget)) == budget
    assert parse_budget(str(budget).replace(" ", "")) == budget


@given(
    st.text(max_size=30) | st.from_regex(r"(size|top1|speedup) *[<>]=? *[+-]?[0-9.]*[a-z%]*", fullmatch=True)
)
def test_any_text_is_a_budget_or_refused_in_words(text: str) -> None:
    try:
        budget = parse_budget(text)
    except ConfigError:
        return
    assert parse_budget(str(budget)) == budget


def test_metrics_of_budgets_are_those_that_can_be_measured() -> None:
    assert set(QUALITIES) == set(METRIC_NAMES)
    assert not set(QUALITIES) & set(RESOURCES)
    for name, info in QUALITIES.items():
        assert info.higher_is_better == get_metric(name).higher_is_better
