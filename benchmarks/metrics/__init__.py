"""Metrics: what a model is worth, per sample, so that two models can be compared on the same samples."""

from edgeq.benchmarks.metrics.base import Flips, Metric, NonFiniteOutputError, Scores
from edgeq.benchmarks.metrics.compare import Accumulator, Comparison, compare
from edgeq.benchmarks.metrics.registry import METRIC_NAMES, default_metrics, get_metric

__all__ = [
    "METRIC_NAMES",
    "Accumulator",
    "Comparison",
    "Flips",
    "Metric",
    "NonFiniteOutputError",
    "Scores",
    "compare",
    "default_metrics",
    "get_metric",
]
