"""Measures one artefact beside its FP32 baseline: size, load time, latency, memory, accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from edgeq.benchmarks.accuracy import measure_accuracy
from edgeq.benchmarks.budgets import Budget
from edgeq.benchmarks.feeding import Feeds, latency_feeds
from edgeq.benchmarks.fresh_process import run_fresh
from edgeq.benchmarks.latency import measure_latency
from edgeq.benchmarks.load_time import load_time
from edgeq.benchmarks.measurement import Measurements
from edgeq.benchmarks.memory import peak_memory
from edgeq.benchmarks.metric_info import RESOURCES
from edgeq.benchmarks.metrics import default_metrics, get_metric
from edgeq.benchmarks.options import BenchOptions
from edgeq.benchmarks.runners import RunnerFactory
from edgeq.benchmarks.size import measure_size
from edgeq.calibration.types import DataSource
from edgeq.progress import Progress, SilentProgress
from edgeq.targets.base import Runner


def measure(
    artefact: RunnerFactory,
    baseline: RunnerFactory | None,
    *,
    folder: Path,
    files: Iterable[str],
    source: DataSource | None,
    metrics: Sequence[str] | None = None,
    budgets: Iterable[Budget] = (),
    threads: int,
    options: BenchOptions | None = None,
    progress: Progress | None = None,
) -> Measurements:
    """Measure what ``options.parts`` name.

    Args:
        artefact: opens the artefact with the target's runtime.
        baseline: opens the FP32 model; None leaves ratios and differences out.
        folder: the artefact folder, for the size of its ``files`` (relative to it).
        source: evaluation data; None leaves accuracy out, and latency runs on random inputs.
        metrics: names of quality metrics; None measures what fits the data. Names of costs (``size``) are
            ignored here, since ``options.parts`` decides on them.
        budgets: the quality metrics that they name are measured too.
        threads: of both runtimes.

    Returns:
        Measurements by metric name; ``failures`` say in words what has no value.

    Raises:
        UsageError: an unknown metric, or one that makes no sense for the data.
        DataError: the evaluation data cannot be used.
        ModelError: a file is missing.
        TargetError: a model cannot be loaded or run.
    """
    job = _Job(artefact, baseline, threads, options or BenchOptions(), progress or SilentProgress())
    result = Measurements()
    wanted = _Wanted.of(metrics, budgets)
    if "size" in job.options.parts:
        result.add(measure_size(folder, files, None if baseline is None else baseline.path))
    with ExitStack() as stack:
        ours = stack.enter_context(closing(artefact.open(threads)))
        theirs = None if baseline is None else stack.enter_context(closing(baseline.open(threads)))
        feeds = _run_in_process(job, ours, theirs, source, wanted, result)
    if feeds is not None and {"load", "memory"} & set(job.options.parts):
        _add_fresh(job, feeds, result)
    return result


@dataclass(frozen=True)
class _Wanted:
    """The quality metrics that were named, and whether they were chosen instead of the default ones."""

    named: tuple[str, ...]
    explicit: bool

    @classmethod
    def of(cls, metrics: Sequence[str] | None, budgets: Iterable[Budget]) -> _Wanted:
        names = [*(metrics or ()), *(budget.metric for budget in budgets)]
        return cls(tuple(dict.fromkeys(n for n in names if n not in RESOURCES)), metrics is not None)


@dataclass(frozen=True)
class _Job:
    artefact: RunnerFactory
    baseline: RunnerFactory | None
    threads: int
    options: BenchOptions
    progress: Progress


def _run_in_process(
    job: _Job,
    ours: Runner,
    theirs: Runner | None,
    source: DataSource | None,
    wanted: _Wanted,
    result: Measurements,
) -> Feeds | None:
    """Accuracy and latency; the inputs of the latter, None when nothing needs them."""
    if "accuracy" in job.options.parts:
        _add_accuracy(job, ours, theirs, source, wanted, result)
    if not {"latency", "load", "memory"} & set(job.options.parts):
        return None
    feeds = latency_feeds([ours] if theirs is None else [ours, theirs], source, job.options)
    if source is None:
        result.notes.append(
            f"Latency and memory are measured on {feeds.origin}: no evaluation data was given."
        )
    if "latency" in job.options.parts:
        result.add(
            *measure_latency(
                ours, theirs, feeds, threads=job.threads, options=job.options, progress=job.progress
            )
        )
    if theirs is None:
        result.failures["speedup"] = "there is no FP32 baseline to compare with"
    return feeds


def _add_accuracy(
    job: _Job,
    ours: Runner,
    theirs: Runner | None,
    source: DataSource | None,
    wanted: _Wanted,
    result: Measurements,
) -> None:
    if source is None:
        result.failures.update(dict.fromkeys(wanted.named, "no evaluation data was given"))
        return
    defaults = [] if wanted.explicit else _defaults(source, ours, theirs)
    metrics = [get_metric(name) for name in dict.fromkeys([*defaults, *wanted.named])]
    found = measure_accuracy(ours, theirs, source, metrics, options=job.options, progress=job.progress)
    result.add(*found.values())
    result.failures.update(found.failures)


def _defaults(source: DataSource, ours: Runner, theirs: Runner | None) -> list[str]:
    names = default_metrics(source, ours.outputs)
    return names if theirs is not None else [name for name in names if not get_metric(name).needs_baseline]


def _add_fresh(job: _Job, feeds: Feeds, result: Measurements) -> None:
    """Load time and memory; the sessions of this process are closed by now, so that both have the machine."""
    factories = [job.artefact] if job.baseline is None else [job.artefact, job.baseline]
    runs = run_fresh(
        factories, feeds.inputs[0], threads=job.threads, options=job.options, progress=job.progress
    )
    theirs = runs[1] if job.baseline is not None else None
    if "load" in job.options.parts:
        result.add(load_time(runs[0], theirs))
    if "memory" in job.options.parts:
        result.add(*peak_memory(runs[0], theirs))
