from __future__ import annotations

import math

import pytest

from edgeq.benchmarks.budgets import parse_budgets
from edgeq.benchmarks.measurement import Measurement, Measurements
from edgeq.benchmarks.verdicts import Verdict, all_passed, judge


def measured() -> Measurements:
    found = Measurements(failures={"f1": "Metric 'f1' failed: output 'y' holds NaN or Inf for sample 3."})
    found.add(
        Measurement("top1", 0.7323, 0.7369, "fraction", True, (-0.012, 0.0031), "difference"),
        Measurement("perplexity", 20.4, 20.0, "", False, (0.1, 0.7), "difference"),
        Measurement("size", 1.2e6, 4.85e6, "bytes", False),
        Measurement("latency_p50", 0.0123, 0.02, "s", False, (0.0121, 0.0126)),
        Measurement("speedup", 1.63, None, "x", True, (1.5, 1.7)),
        Measurement("mine:error", 0.2, 0.1, "", False),
    )
    return found


@pytest.mark.parametrize(
    ("budget", "status", "sentence"),
    [
        (
            "top1 >= 99%",
            "pass",
            "top1 is 73.23 % (95 % interval of the difference to FP32: -1.20 to +0.31 points); the budget is "
            "at least 99% of the FP32 baseline's 73.69 %, that is 72.95 %: kept.",
        ),
        (
            "top1 >= 0.75",
            "fail",
            "top1 is 73.23 % (95 % interval of the difference to FP32: -1.20 to +0.31 points); the budget is "
            "at least 75.00 %: missed.",
        ),
        (
            "top1 >= -0.005",
            "pass",
            "top1 is 73.23 % (95 % interval of the difference to FP32: -1.20 to +0.31 points); the budget is "
            "at least the FP32 baseline's 73.69 % -0.50 points, that is 73.19 %: kept.",
        ),
        (
            "perplexity <= +0.3",
            "fail",
            "perplexity is 20.4 (95 % interval of the difference to FP32: +0.1 to +0.7); the budget is at "
            "most the FP32 baseline's 20 +0.3, that is 20.3: missed.",
        ),
        (
            "perplexity <= 102%",
            "pass",
            "perplexity is 20.4 (95 % interval of the difference to FP32: +0.1 to +0.7); the budget is at "
            "most 102% of the FP32 baseline's 20, that is 20.4: kept.",
        ),
        ("size <= 1MB", "fail", "size is 1.2 MB; the budget is at most 1 MB: missed."),
        (
            "latency_p50 <= 20ms",
            "pass",
            "latency_p50 is 12.3 ms (95 % interval: 12.1 ms to 12.6 ms); the budget is at most 20 ms: kept.",
        ),
        (
            "speedup >= 1.6x",
            "pass",
            "speedup is 1.63x (95 % interval: 1.50x to 1.70x); the budget is at least 1.60x: kept.",
        ),
        (
            "load_time <= 1s",
            "not-measured",
            "load_time was not measured, so load_time <= 1s cannot be kept.",
        ),
        (
            "f1 >= 95%",
            "not-measured",
            "f1 was not measured, so f1 >= 95% cannot be kept: Metric 'f1' failed: output 'y' holds NaN or "
            "Inf for sample 3.",
        ),
        (
            "mine:error >= 0.1",
            "fail",
            "mine:error is better when lower, so mine:error >= 0.1 must be written with <=.",
        ),
    ],
)
def test_sentences(budget: str, status: str, sentence: str) -> None:
    (verdict,) = judge(parse_budgets([budget]), measured())
    assert (verdict.status, verdict.sentence) == (status, sentence)
    assert verdict.passed == (status == "pass")


@pytest.mark.parametrize(
    ("budget", "value", "baseline", "status"),
    [
        ("top1 >= 0.7", math.nan, 0.7, "fail"),
        ("top1 >= 99%", 0.7, math.nan, "fail"),
        ("top1 >= 99%", 0.7, None, "fail"),
        ("top1 >= -0.1", 0.7, None, "fail"),
        ("top1 >= 99%", 0.0, 0.0, "fail"),
        ("top1 >= 0.5", 0.7, None, "pass"),
        ("top1 >= 100%", 0.7, 0.7, "pass"),
        # 0.99 * 0.7 is a bit more than 0.693 in binary; the rounding of the product is no miss.
        ("top1 >= 99%", 0.693, 0.7, "pass"),
        ("top1 >= 99%", 0.6929, 0.7, "fail"),
        ("top1 >= 0.7", math.inf, None, "fail"),
        ("perplexity <= 20", math.inf, None, "fail"),
    ],
)
def test_edges(budget: str, value: float, baseline: float | None, status: str) -> None:
    higher = budget.startswith("top1")
    name = budget.split()[0]
    found = {name: Measurement(name, value, baseline, "fraction" if higher else "", higher)}
    (verdict,) = judge(parse_budgets([budget]), found)
    assert verdict.status == status
    assert verdict.sentence.endswith(".")


def test_a_missing_measurement_is_no_pass() -> None:
    verdicts = judge(parse_budgets(["size <= 1GB"]), {})
    assert [v.status for v in verdicts] == ["not-measured"]
    assert not all_passed(verdicts)
    assert all_passed([])


def test_verdicts_come_in_the_order_of_the_budgets_and_survive_json() -> None:
    verdicts = judge(parse_budgets(["size <= 1MB", "top1 >= 99%", "size <= 2MB"]), measured())
    assert [v.status for v in verdicts] == ["fail", "pass", "pass"]
    assert [Verdict.from_json(v.to_json()) for v in verdicts] == verdicts
