"""Measures one artefact beside its FP32 baseline: size, load time, latency, memory, accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

from edgeq.benchmarks.accuracy import measure_accuracy
from edgeq.benchmarks.budgets import Budget
from edgeq.benchmarks.feeding import Feeds, latency_feeds
from edgeq.benchmarks.fresh_process import run_fresh
from edgeq.benchmarks.latency import measure_latency
from edgeq.benchmarks.load_time import load_time
from edgeq.benchmarks.measurement import Measurements
from edgeq.benchmarks.memory import peak_memory
from edgeq.benchmarks.metric_info import DEVICE, RESOURCES, resource
from edgeq.benchmarks.metrics import default_metrics, get_metric
from edgeq.benchmarks.options import BenchOptions, Part
from edgeq.benchmarks.size import measure_size
from edgeq.benchmarks.subject import Subject
from edgeq.calibration.types import DataSource
from edgeq.errors import EdgeqError, UsageError
from edgeq.progress import Progress, SilentProgress
from edgeq.targets.base import DeviceRunner, Runner

__all__ = ["BenchOptions", "Subject", "measure"]


def measure(
    artefact: Subject,
    baseline: Subject | None,
    *,
    source: DataSource | None,
    metrics: Sequence[str] | None = None,
    budgets: Iterable[Budget] = (),
    options: BenchOptions | None = None,
    progress: Progress | None = None,
) -> Measurements:
    """Measure what ``options.parts`` name.

    Args:
        artefact: what is measured, by the target's runtime.
        baseline: the FP32 model; None leaves ratios and differences out.
        source: evaluation data; None leaves accuracy out, and latency runs on random inputs.
        metrics: names of quality metrics; None measures what fits the data. Names of costs (``size``) are
            ignored here, since ``options.parts`` decides on them.
        budgets: the quality metrics that they name are measured too.
        options: what to measure and for how long.
        progress: receives the progress.

    Returns:
        Measurements by metric name; ``failures`` say in words what has no value.

    Raises:
        UsageError: an unknown metric, or one that makes no sense for the data.
        DataError: the evaluation data cannot be used.
        ModelError: a file is missing.
        TargetError: a model cannot be loaded or run.
    """
    _require_same_threads(artefact, baseline)
    job = _Job(artefact, baseline, source, options or BenchOptions(), progress or SilentProgress())
    wanted = _Wanted.of(metrics, budgets)
    result = Measurements()
    if job.asks("size"):
        result.add(measure_size(artefact, baseline))
    if job.asks("placement"):
        _add_placement(job, result)
    with ExitStack() as stack:
        ours = stack.enter_context(closing(artefact.open()))
        theirs = None if baseline is None else stack.enter_context(closing(baseline.open()))
        if job.asks("accuracy"):
            _add_accuracy(job, ours, theirs, wanted, result)
        feeds = _feeds(job, ours, theirs, result) if job.asks("latency", "load", "memory") else None
        if feeds is not None and job.asks("latency"):
            _add_latency(job, ours, theirs, feeds, result)
    # The sessions of this process are closed by now, so that the fresh ones have the machine.
    if feeds is not None and job.asks("load", "memory"):
        _add_fresh(job, feeds, result)
    _explain_what_is_missing(job, wanted, result)
    return result


@dataclass(frozen=True)
class _Wanted:
    """The metrics that were named, and whether qualities were chosen instead of the default ones."""

    named: tuple[str, ...]
    explicit: bool

    @classmethod
    def of(cls, metrics: Sequence[str] | None, budgets: Iterable[Budget]) -> _Wanted:
        names = [*(metrics or ()), *(budget.metric for budget in budgets)]
        return cls(tuple(dict.fromkeys(names)), metrics is not None)

    @property
    def qualities(self) -> list[str]:
        """What is measured on evaluation data."""
        return [name for name in self.named if name not in RESOURCES]


@dataclass(frozen=True)
class _Job:
    artefact: Subject
    baseline: Subject | None
    source: DataSource | None
    options: BenchOptions
    progress: Progress

    def asks(self, *parts: Part) -> bool:
        """Whether one of the parts is to be measured."""
        return any(part in self.options.parts for part in parts)


def _require_same_threads(artefact: Subject, baseline: Subject | None) -> None:
    if baseline is None or baseline.threads == artefact.threads:
        return
    raise UsageError(
        f"The artefact has {artefact.threads} threads and the baseline {baseline.threads}.",
        fix="Give both the same number.",
    )


def _add_accuracy(
    job: _Job, ours: Runner, theirs: Runner | None, wanted: _Wanted, result: Measurements
) -> None:
    if job.source is None:
        return
    defaults = [] if wanted.explicit else _defaults(job.source, ours, theirs)
    metrics = [get_metric(name) for name in dict.fromkeys([*defaults, *wanted.qualities])]
    found = measure_accuracy(ours, theirs, job.source, metrics, options=job.options, progress=job.progress)
    result.add(*found.values())
    result.failures.update(found.failures)


def _defaults(source: DataSource, ours: Runner, theirs: Runner | None) -> list[str]:
    names = default_metrics(source, ours.outputs)
    return names if theirs is not None else [name for name in names if not get_metric(name).needs_baseline]


def _feeds(job: _Job, ours: Runner, theirs: Runner | None, result: Measurements) -> Feeds | None:
    """The inputs of timed inferences; None, and a failure in words, where random ones do not do."""
    runners = [ours] if theirs is None else [ours, theirs]
    if job.source is not None:
        return latency_feeds(runners, job.source, job.options)
    try:
        feeds = latency_feeds(runners, None, job.options)
        for runner in runners:
            runner.run(feeds.inputs[0])
    except EdgeqError as error:
        reason = f"without evaluation data the model would have to run on random inputs: {error}"
        result.failures.update(dict.fromkeys(_names_of("latency", "load", "memory"), reason))
        return None
    result.notes.append(f"Latency and memory are measured on {feeds.origin}: no evaluation data was given.")
    return feeds


def _add_placement(job: _Job, result: Measurements) -> None:
    target, path = job.artefact.target, job.artefact.path
    if ":" in target or path.suffix == ".onnx":
        return
    from edgeq.targets.registry import get_target

    for name, value in get_target(target).shares(path).items():
        result.add(resource(name, value))


def _add_latency(job: _Job, ours: Runner, theirs: Runner | None, feeds: Feeds, result: Measurements) -> None:
    threads = job.artefact.threads
    result.add(
        *measure_latency(ours, theirs, feeds, threads=threads, options=job.options, progress=job.progress)
    )
    if isinstance(ours, DeviceRunner):
        original = None if job.baseline is None else job.baseline.path
        report = ours.measure_device(original, feeds.inputs, job.options, job.progress)
        result.add(*report.measurements)
        result.findings.extend(report.findings)
        result.notes.extend(report.notes)


def _add_fresh(job: _Job, feeds: Feeds, result: Measurements) -> None:
    subjects = [job.artefact] if job.baseline is None else [job.artefact, job.baseline]
    runs = run_fresh(subjects, feeds.inputs[0], options=job.options, progress=job.progress)
    theirs = runs[1] if job.baseline is not None else None
    if job.asks("load"):
        result.add(load_time(runs[0], theirs))
    if job.asks("memory"):
        result.add(*peak_memory(runs[0], theirs))


def _explain_what_is_missing(job: _Job, wanted: _Wanted, result: Measurements) -> None:
    """A reason for everything that was named and has no value."""
    for name in wanted.named:
        if name in result or name in result.failures:
            continue
        part = part_of(name)
        if not job.asks(part):
            result.failures[name] = f"measuring {part} was switched off"
        elif part == "placement":
            result.failures[name] = f"target {job.artefact.target} does not say where operations run"
        elif name in DEVICE:
            result.failures[name] = f"target {job.artefact.target} has no device with such a clock here"
        elif part == "accuracy":
            result.failures[name] = "no evaluation data was given"
        else:
            result.failures[name] = "there is no FP32 baseline to compare with"


def part_of(metric: str) -> Part:
    """Which part of the harness measures a metric."""
    if metric not in RESOURCES:
        return "accuracy"
    return _PARTS.get(metric, "latency")


def _names_of(*parts: Part) -> list[str]:
    return [name for name in RESOURCES if part_of(name) in parts]


_PARTS: dict[str, Part] = {
    "size": "size",
    "load_time": "load",
    "peak_memory": "memory",
    "peak_memory_process": "memory",
    "ane_share": "placement",
    "gpu_share": "placement",
    "cpu_share": "placement",
}
