"""Metrics by name."""

from __future__ import annotations

from collections.abc import Sequence

from edgeq.benchmarks.metrics.base import Metric
from edgeq.benchmarks.metrics.classification import F1, Accuracy, F1Macro, Top1, Top5
from edgeq.benchmarks.metrics.divergence import Kl, KlP99, Top1Agreement
from edgeq.benchmarks.metrics.fidelity import Cosine, Mse, Psnr, Sqnr
from edgeq.benchmarks.metrics.perplexity import Perplexity
from edgeq.benchmarks.metrics.user import UserMetric
from edgeq.calibration.types import DataSource, TensorSpec
from edgeq.errors import UsageError

_METRICS: tuple[type[Metric], ...] = (
    Top1, Top5, Accuracy, F1, F1Macro, Perplexity, Kl, KlP99, Top1Agreement, Psnr, Cosine, Sqnr, Mse,
)  # fmt: skip
METRIC_NAMES: tuple[str, ...] = tuple(metric.name for metric in _METRICS)


def get_metric(name: str, *, output: str | None = None) -> Metric:
    """The metric called ``name``, or a user's ``module:callable``, reading ``output`` (default: the first).

    Raises:
        UsageError: there is no such metric.
    """
    if ":" in name:
        return UserMetric(name, output)
    for metric in _METRICS:
        if metric.name == name:
            return metric(output)
    raise UsageError(
        f"Unknown metric {name!r}.", fix=f"Known metrics: {', '.join(METRIC_NAMES)}, or module:callable."
    )


def default_metrics(source: DataSource, outputs: Sequence[TensorSpec]) -> list[str]:
    """What is measured when nobody said: the task's own metrics where data and outputs allow, and SQNR.

    Where a language model's predictions are compared over the whole vocabulary, SQNR would add nothing.
    """
    wanted: list[str] = []
    if source.task == "classification":
        wanted = ["top1", "top5", "f1"] if _scores_per_class(outputs) else ["accuracy", "f1"]
    if source.task == "language-model":
        wanted = ["perplexity", "kl", "kl_p99", "top1_agreement"]
    found = [name for name in wanted if _fits(name, source, outputs)]
    return found if "kl" in found else [*found, "sqnr"]


def _scores_per_class(outputs: Sequence[TensorSpec]) -> bool:
    shape = outputs[0].shape if outputs else None
    return shape is not None and len(shape) > 1 and shape[1] != 1


def _fits(name: str, source: DataSource, outputs: Sequence[TensorSpec]) -> bool:
    try:
        get_metric(name).check(source, outputs)
    except UsageError:
        return False
    return True
