"""Accuracy: the FP32 baseline and the artefact on the same samples, paired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from edgeq.benchmarks.feeding import OUTPUT_BYTES, batch_size, bounded_batch, padded, without_padding
from edgeq.benchmarks.measurement import Measurement, Measurements
from edgeq.benchmarks.metrics import Accumulator, Metric, NonFiniteOutputError, compare
from edgeq.benchmarks.metrics.divergence import share_divergences
from edgeq.benchmarks.options import BenchOptions
from edgeq.benchmarks.protocol import PERPLEXITY, with_words
from edgeq.benchmarks.units import format_value
from edgeq.calibration.types import Arrays, Batch, DataSource
from edgeq.errors import DataError
from edgeq.progress import Progress
from edgeq.targets.base import Runner


def measure_accuracy(
    artefact: Runner,
    baseline: Runner | None,
    source: DataSource,
    metrics: Sequence[Metric],
    *,
    options: BenchOptions,
    progress: Progress,
) -> Measurements:
    """Run both models over the samples and aggregate every metric.

    A metric that has no value (NaN in an output, no baseline to compare with) is a failure in words; the
    others go on.

    Raises:
        UsageError: a metric makes no sense for the data or the model; before anything runs.
        DataError: the data cannot be used.
        TargetError: a model cannot be run.
    """
    for metric in metrics:
        metric.check(source, artefact.outputs)
    share_divergences(metrics)
    result = Measurements()
    pairs = _usable(metrics, artefact.outputs[0].name, baseline is not None, result)
    size = _batch([artefact] if baseline is None else [artefact, baseline], source, options, result)
    with progress.task("Evaluating", _expected(source, options)) as advance:
        for batch in source.batches(size, options.samples):
            inputs = padded(batch, size)
            ours = without_padding(artefact.run(inputs), batch, size)
            theirs = None if baseline is None else without_padding(baseline.run(inputs), batch, size)
            for pair in pairs:
                pair.update(ours, theirs, batch, result)
            advance(batch.size)
    _add_values(pairs, result, size, options.seed)
    if PERPLEXITY in result:
        result.add(with_words(result[PERPLEXITY], source.describe()))
    return result


def _batch(runners: Sequence[Runner], source: DataSource, options: BenchOptions, result: Measurements) -> int:
    """The samples per inference; fewer than asked where their outputs would take too much memory."""
    asked = batch_size(runners, options.batch_size)
    if asked == 1:
        return 1
    first = next(iter(source.batches(1, 1)), None)
    size = asked if first is None else bounded_batch(runners, asked, first)
    if size < asked:
        result.notes.append(
            f"Accuracy is measured with {size} samples at a time, not {asked}: "
            f"their outputs would take more than {format_value(OUTPUT_BYTES, 'bytes')}."
        )
    return size


@dataclass
class _Pair:
    """A metric's scores of both models. ``theirs`` None: the metric has no value of the baseline."""

    metric: Metric
    ours: Accumulator
    theirs: Accumulator | None
    first_output: str
    failed: bool = field(default=False)

    def update(self, ours: Arrays, theirs: Arrays | None, batch: Batch, result: Measurements) -> None:
        """Add a batch; a metric that fails once is left out from then on."""
        if self.failed:
            return
        try:
            self._require_samples(ours)
            if self.theirs is not None and theirs is not None:
                self._update_baseline(theirs, batch)
            self.ours.update(ours, batch, theirs)
        except (NonFiniteOutputError, _NoValueError) as error:
            self.failed = True
            result.failures[self.metric.name] = str(error)

    def _update_baseline(self, theirs: Arrays, batch: Batch) -> None:
        assert self.theirs is not None
        try:
            self.theirs.update(theirs, batch)
        except NonFiniteOutputError as error:
            raise _NoValueError(f"In the FP32 baseline: {error}") from error

    def _require_samples(self, outputs: Arrays) -> None:
        name = self.metric.output or self.first_output
        if name not in outputs:
            raise _NoValueError(
                f"The output {name!r} has no axis of samples, so the padding of the last batch cannot be "
                "cut off."
            )
        if outputs[name].ndim == 0:
            raise _NoValueError(f"The output {name!r} is a single number without an axis of samples.")


class _NoValueError(DataError):
    """A metric has no value, for a reason that does not concern the other metrics."""


def _usable(
    metrics: Sequence[Metric], first_output: str, has_baseline: bool, result: Measurements
) -> list[_Pair]:
    pairs = []
    for metric in metrics:
        if metric.needs_baseline and not has_baseline:
            result.failures[metric.name] = "It compares with the FP32 baseline, and there is none."
            continue
        paired = has_baseline and not metric.needs_baseline
        pairs.append(
            _Pair(metric, Accumulator(metric), Accumulator(metric) if paired else None, first_output)
        )
    return pairs


def _expected(source: DataSource, options: BenchOptions) -> int | None:
    if source.size is None:
        return options.samples
    return source.size if options.samples is None else min(source.size, options.samples)


def _add_values(pairs: Sequence[_Pair], result: Measurements, size: int, seed: int) -> None:
    for pair in pairs:
        if not pair.failed:
            result.add(_measurement(pair, size, seed))


def _measurement(pair: _Pair, size: int, seed: int) -> Measurement:
    ours = pair.ours.scores
    theirs = None if pair.theirs is None else pair.theirs.scores
    found = compare(pair.metric, ours, theirs, seed=seed)
    detail: dict[str, Any] = {"samples": found.samples, "batch": size}
    detail.update(pair.metric.seen(ours))
    if found.method is not None:
        detail["interval_method"] = found.method
    if found.flips is not None:
        detail["flips"] = asdict(found.flips)
    interval = None if found.low is None or found.high is None else (found.low, found.high)
    return Measurement(
        pair.metric.name,
        found.value,
        found.baseline,
        pair.metric.unit,
        pair.metric.higher_is_better,
        interval=interval,
        interval_of="value" if found.baseline is None else "difference",
        detail=detail,
    )
