"""Neural Compressor's ``autotune``: it tries settings until one keeps the metric, and returns a model anyway.

So what it returned is measured again by the caller, in the form that ships.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgeq.benchmarks.metrics import (
    Accumulator,
    Metric,
    NonFiniteOutputError,
    default_metrics,
    get_metric,
)
from edgeq.calibration.types import Arrays, DataSource, TensorSpec
from edgeq.errors import DataError, EdgeqError, TargetError, UsageError
from edgeq.quiet import quiet, reason

# Samples at a time.
_BATCH = 8


@dataclass(frozen=True)
class Trial:
    """One setting in words, and the metric of the model that it gave."""

    setting: str
    value: float


@dataclass(frozen=True)
class Tuned:
    """What ``autotune`` returned, the metric of the float model, and of every model that was tried."""

    model: Any
    baseline: float
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Judge:
    """A metric on evaluation data, and the relative loss of it that is tolerated."""

    metric: Metric
    source: DataSource
    tolerance: float

    def measure(self, run: Callable[[Arrays], Arrays]) -> float:
        """The metric of what ``run`` computes; NaN where an output is not finite.

        Raises:
            DataError: the data is empty or cannot be used.
        """
        scores = Accumulator(self.metric)
        try:
            for batch in self.source.batches(_BATCH):
                scores.update(run(batch.inputs), batch)
        except NonFiniteOutputError:
            return math.nan
        return scores.value()

    def loss(self, value: float, baseline: float) -> float:
        """By how much ``value`` is worse than ``baseline``, relative to it; infinite for NaN."""
        if math.isnan(value):
            return math.inf
        worse = baseline - value if self.metric.higher_is_better else value - baseline
        return worse / abs(baseline)

    def describe(self, trial: Trial, baseline: float) -> str:
        """A trial in words."""
        return f"{trial.setting} {trial.value:.4g} ({self.loss(trial.value, baseline):+.2%} loss)"


def judge(
    source: DataSource | None, outputs: Sequence[TensorSpec], name: str | None, tolerance: float
) -> Judge:
    """What ``autotune`` optimizes: the metric called ``name``, else the first of the task's own.

    Raises:
        DataError: there is no evaluation data.
        UsageError: the metric does not fit the data, or has no value of the float model.
    """
    if source is None:
        raise DataError(
            "autotune compares models on evaluation data and none was given.", fix="Give --evaluation."
        )
    metric = get_metric(name or default_metrics(source, outputs)[0])
    if metric.needs_baseline:
        raise UsageError(
            f"autotune cannot use the metric {metric.name!r}: the float model has no value of it.",
            fix="Give labelled data or text, or name another one: -O autotune-metric=NAME.",
        )
    metric.check(source, outputs)
    return Judge(metric, source, tolerance)


def autotune(
    model: Any,
    settings: Sequence[tuple[str, Any]],
    judge: Judge,
    run: Callable[[Any, Arrays], Arrays],
    run_fn: Callable[..., None] | None,
    example: Any,
) -> Tuned:
    """Run Neural Compressor's ``autotune`` over ``settings`` (words and configuration), in that order.

    ``run`` computes the outputs of a model, ``run_fn`` calibrates a prepared one. The model returned is that
    of the first setting within the tolerance, else the best one: it may miss it.

    Raises:
        TargetError: Neural Compressor fails, or the float model's metric is 0.
        DataError: the evaluation data cannot be used.
    """
    values: list[float] = []

    def score(tried: Any) -> float:
        values.append(judge.measure(lambda inputs: run(tried, inputs)))
        if len(values) == 1 and not values[0]:
            raise TargetError(f"autotune has nothing to keep: {judge.metric.name} of the float model is 0.")
        # higher must be better, and its relative distance to the float model's the loss
        return -math.inf if math.isnan(values[-1]) else values[0] * (1 - judge.loss(values[-1], values[0]))

    try:
        with quiet():
            from neural_compressor.torch.quantization import TuningConfig
            from neural_compressor.torch.quantization import autotune as tune

            config = TuningConfig(
                config_set=[one for _, one in settings],
                tolerable_loss=judge.tolerance,
                max_trials=len(settings),
            )
            found = tune(model, config, score, run_fn=run_fn, example_inputs=example)
    except EdgeqError:
        raise
    except Exception as error:
        raise TargetError(f"Neural Compressor's autotune fails: {reason(error)}.") from error
    names = [name for name, _ in settings]
    return Tuned(found, values[0], tuple(Trial(*pair) for pair in zip(names, values[1:], strict=False)))


def refuse_missed(judge: Judge, tuned: Tuned, value: float) -> None:
    """Refuse what ``autotune`` returned when the artefact made of it, whose metric is ``value``, misses.

    Raises:
        TargetError: with the best of the trials.
    """
    if judge.loss(value, tuned.baseline) <= judge.tolerance:
        return
    tried = "; ".join(judge.describe(trial, tuned.baseline) for trial in tuned.trials)
    raise TargetError(
        f"autotune keeps no more than {judge.metric.name} {value:.4g} of {tuned.baseline:.4g} in float, a "
        f"loss of {judge.loss(value, tuned.baseline):.2%} where {judge.tolerance:.2%} are tolerated; "
        f"tried: {tried}.",
        fix="Tolerate more (-O autotune=5%), keep layers in float (--exclude), or give calibration data "
        "for more methods.",
    )
