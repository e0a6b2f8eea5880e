"""Tasks' metrics as budgets and reports call them: ``lm_eval/TASK/METRIC``."""

from __future__ import annotations

PREFIX = "lm_eval/"
# Of lm-eval's own metrics: shares of right answers, and those that improve downwards.
_FRACTIONS = frozenset({"acc", "acc_norm", "acc_bytes", "acc_all", "exact_match", "f1"})
_LOWER = frozenset(
    {"perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "brier_score", "ter", "nll"}
)


def is_task_metric(name: str) -> bool:
    """Whether a metric is one of a task."""
    return name.startswith(PREFIX)


def task_metric(task: str, key: str) -> str:
    """The name of a result of lm-eval, ``acc,none``: a filter other than ``none`` stays part of it."""
    return f"{PREFIX}{task}/{key.removesuffix(',none')}"


def task_of(name: str) -> str:
    """The task that a metric is of."""
    return name.removeprefix(PREFIX).rpartition("/")[0]


def own_name(name: str) -> str | None:
    """The metric as lm-eval calls it, without task and filter; None where the name has not all parts."""
    task, _, metric = name.removeprefix(PREFIX).rpartition("/")
    return metric.partition(",")[0] if task and metric else None


def unit_of(metric: str) -> str:
    """``fraction`` for shares of right answers, else none."""
    return "fraction" if metric in _FRACTIONS else ""


def direction_of(metric: str) -> bool | None:
    """Whether higher is better; None for a metric that only the task knows."""
    if metric in _FRACTIONS:
        return True
    return False if metric in _LOWER else None
