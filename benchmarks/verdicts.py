"""Judging: budgets against measurements, each with a sentence that stands on its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from edgeq.benchmarks.budgets import Budget
from edgeq.benchmarks.measurement import Measurement, Measurements
from edgeq.benchmarks.units import difference_number, format_difference, format_value

Status = Literal["pass", "fail", "not-measured"]

# Limits are products of floats (99 % of 0.7): a value that misses by rounding alone is no miss.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Verdict:
    """One budget, judged.

    Attributes:
        budget: its canonical text.
        metric: the metric's name.
        status: ``pass``, ``fail``, or ``not-measured`` (which counts as a failure).
        sentence: what was asked, what was measured, and whether that is enough.
        measured: the value as people read it; a dash when there is none.
        limit: the value that had to be kept, as people read it; a dash when it needs a missing baseline.
    """

    budget: str
    metric: str
    status: Status
    sentence: str
    measured: str = "-"
    limit: str = "-"

    @property
    def passed(self) -> bool:
        """Only ``pass`` is one."""
        return self.status == "pass"

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        """The inverse of :meth:`to_json`."""
        return cls(**data)


def judge(budgets: Iterable[Budget], measurements: Mapping[str, Measurement]) -> list[Verdict]:
    """Judge every budget, in order, by point values (their intervals are shown, not used).

    A budget on something that was not measured, or whose value is NaN or infinite, or that needs a baseline
    which is missing, is never a pass.
    """
    failures = measurements.failures if isinstance(measurements, Measurements) else {}
    return [_judge(budget, measurements.get(budget.metric), failures) for budget in budgets]


def all_passed(verdicts: Iterable[Verdict]) -> bool:
    """Whether every budget is kept; true without budgets."""
    return all(verdict.passed for verdict in verdicts)


def _judge(budget: Budget, found: Measurement | None, failures: Mapping[str, str]) -> Verdict:
    text = str(budget)
    if found is None:
        why = failures.get(budget.metric)
        reason = f": {why.rstrip('.')}" if why else ""
        sentence = f"{budget.metric} was not measured, so {text} cannot be kept{reason}."
        return Verdict(text, budget.metric, "not-measured", sentence)
    shown = format_value(found.value, found.unit)
    problem = _problem(budget, found)
    if problem is not None:
        return Verdict(text, budget.metric, "fail", f"{problem}.", shown)
    limit = _limit(budget, found.baseline)
    slack = ROUNDING * abs(limit)
    kept = found.value <= limit + slack if budget.operator == "<=" else found.value >= limit - slack
    sentence = f"{_finding(found, shown)}; {_demand(budget, found, limit)}: {'kept' if kept else 'missed'}."
    return Verdict(
        text, budget.metric, "pass" if kept else "fail", sentence, shown, format_value(limit, found.unit)
    )


def _problem(budget: Budget, found: Measurement) -> str | None:
    """Why the budget cannot be kept whatever its bound is, or None."""
    right = ">=" if found.higher_is_better else "<="
    if budget.operator != right:
        better = "higher" if found.higher_is_better else "lower"
        return f"{budget.metric} is better when {better}, so {budget} must be written with {right}"
    if not math.isfinite(found.value):
        return f"{budget.metric} is {found.value}, so {budget} is missed"
    if not budget.needs_baseline:
        return None
    if found.baseline is None:
        return f"{budget} needs the FP32 baseline, which was not measured"
    if not math.isfinite(found.baseline):
        return f"{budget} needs the FP32 baseline, whose {budget.metric} is {found.baseline}"
    if budget.kind == "relative" and found.baseline <= 0:
        base = format_value(found.baseline, found.unit)
        return f"The FP32 baseline's {budget.metric} is {base}, so a percentage of it ({budget}) says nothing"
    return None


def _limit(budget: Budget, baseline: float | None) -> float:
    if baseline is None or budget.kind == "absolute":
        return budget.bound
    return baseline * budget.bound if budget.kind == "relative" else baseline + budget.bound


def _finding(found: Measurement, shown: str) -> str:
    """``top1 is 73.23 % (95 % interval of the difference to FP32: -1.20 to +0.31 points)``."""
    text = f"{found.metric} is {shown}"
    if found.interval is None:
        return text
    low, high = found.interval
    if found.interval_of == "difference":
        span = f"{difference_number(low, found.unit)} to {format_difference(high, found.unit)}"
        return f"{text} (95 % interval of the difference to FP32: {span})"
    return f"{text} (95 % interval: {format_value(low, found.unit)} to {format_value(high, found.unit)})"


def _demand(budget: Budget, found: Measurement, limit: float) -> str:
    """What the budget asks for, spelled out: a percentage names the baseline that it is of."""
    word = "at most" if budget.operator == "<=" else "at least"
    shown = format_value(limit, found.unit)
    if budget.kind == "absolute" or found.baseline is None:
        return f"the budget is {word} {shown}"
    base = format_value(found.baseline, found.unit)
    if budget.kind == "relative":
        return f"the budget is {word} {budget.number:g}% of the FP32 baseline's {base}, that is {shown}"
    change = format_difference(budget.bound, found.unit)
    return f"the budget is {word} the FP32 baseline's {base} {change}, that is {shown}"
