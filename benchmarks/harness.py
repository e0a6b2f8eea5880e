"""Measures one artefact beside its FP32 baseline: size, load time, latency, memory, accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgeq.benchmarks.accuracy import measure_accuracy
from edgeq.benchmarks.budgets import Budget
from edgeq.benchmarks.feeding import Feeds, latency_feeds
from edgeq.benchmarks.fresh_process import ProcessRun, run_fresh
from edgeq.benchmarks.generation import Rounds, generation_measurements, prompts_of, time_generation
from edgeq.benchmarks.intervals import Times
from edgeq.benchmarks.latency import Timing, latency_measurements, time_in_turns
from edgeq.benchmarks.load_time import load_time
from edgeq.benchmarks.measurement import Measurements
from edgeq.benchmarks.memory import peak_memory
from edgeq.benchmarks.metric_info import RESOURCES, resource
from edgeq.benchmarks.metrics import default_metrics, get_metric
from edgeq.benchmarks.options import BenchOptions, Part
from edgeq.benchmarks.parts import names_of, why_missing
from edgeq.benchmarks.remembered import reference_of
from edgeq.benchmarks.size import measure_size
from edgeq.benchmarks.subject import Subject, require_same_threads
from edgeq.benchmarks.tasks.names import is_task_metric
from edgeq.calibration.types import DataSource
from edgeq.errors import EdgeqError, TargetError
from edgeq.progress import Progress, SilentProgress
from edgeq.targets.base import DeviceRunner, GeneratingRunner, Runner

__all__ = ["BenchOptions", "Subject", "Together", "measure", "measure_together"]


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
    found = measure_together(
        [artefact],
        baseline,
        source=source,
        metrics=metrics,
        budgets=budgets,
        options=[options or BenchOptions()],
        progress=progress,
    )[0]
    if found.error is not None:
        raise found.error
    return found.measurements


@dataclass(frozen=True)
class Together:
    """What was measured of one of several artefacts, up to the ``error`` that ended it.

    ``times``: seconds per inference, [turns, inferences per turn]; turn i of all artefacts that have times is
    the same stretch of time, so that they can be compared pair by pair. None without latency.
    """

    measurements: Measurements
    times: Times | None = None
    error: Exception | None = None


def measure_together(
    artefacts: Sequence[Subject],
    baseline: Subject | None,
    *,
    source: DataSource | None,
    metrics: Sequence[str] | None = None,
    budgets: Iterable[Budget] = (),
    options: Sequence[BenchOptions],
    progress: Progress | None = None,
) -> list[Together]:
    """Measure several artefacts beside one baseline: samples run through it once, and latency in turns.

    ``options`` has one entry for each artefact, which may differ in their parts only; the rest is as for
    :func:`measure`. An error of one artefact ends its own measuring.

    Raises:
        EdgeqError: the baseline cannot be loaded.
    """
    wanted = _Wanted.of(metrics, budgets)
    watch = progress or SilentProgress()
    runs = [
        _Run(_Job(artefact, baseline, source, chosen, watch))
        for artefact, chosen in zip(artefacts, options, strict=True)
    ]
    with ExitStack() as stack:
        theirs = None if baseline is None else stack.enter_context(closing(baseline.open()))
        reference = reference_of(theirs, baseline, len(runs), stack)
        for run in runs:
            with run.attempt():
                run.start(stack, reference, wanted)
        feeds = _feed(runs, theirs)
        if feeds is not None:
            _add_latencies(runs, theirs, feeds)
        _add_generation(runs, theirs)
    # The sessions of this process are closed by now, so that the fresh ones have the machine.
    if feeds is not None:
        _add_fresh(runs, baseline, feeds)
    for run in runs:
        _explain_what_is_missing(run.job, wanted, run.result)
    return [Together(run.result, run.times, run.error) for run in runs]


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
        return [name for name in self.named if name not in RESOURCES and not is_task_metric(name)]


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


@dataclass
class _Run:
    """The measuring of one artefact: what it has found, or the error that ended it."""

    job: _Job
    result: Measurements = field(default_factory=Measurements)
    runner: Runner | None = None
    times: Times | None = None
    fed: bool = False
    error: Exception | None = None

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """An error inside is this artefact's, not that of the others."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 (a single artefact raises it again, a row shows it)
            self.error = error

    def open(self, stack: ExitStack) -> Runner:
        """The artefact's runner, for as long as ``stack`` lasts."""
        self.runner = stack.enter_context(closing(self.job.artefact.open()))
        return self.runner

    def start(self, stack: ExitStack, theirs: Runner | None, wanted: _Wanted) -> None:
        """Everything that takes no clock: size, placement, accuracy."""
        job = self.job
        require_same_threads(job.artefact, job.baseline)
        if job.asks("size"):
            self.result.add(measure_size(job.artefact, job.baseline))
        if job.asks("placement"):
            _add_placement(job, self.result)
        ours = self.open(stack)
        if job.asks("accuracy"):
            _add_accuracy(job, ours, theirs, wanted, self.result)
            _add_tasks(job, ours, theirs, self.result)

    def asks(self, *parts: Part) -> bool:
        """Whether one of the parts is still to be measured."""
        return self.error is None and self.job.asks(*parts)


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
    result.notes.extend(found.notes)


def _add_tasks(job: _Job, ours: Runner, theirs: Runner | None, result: Measurements) -> None:
    """Tasks of lm-eval, with the tokenizer of the original where it is known: not every format has one."""
    if not job.options.tasks:
        return
    from edgeq.benchmarks.tasks.files import read_task
    from edgeq.benchmarks.tasks.measure import measure_tasks

    tasks = [read_task(Path(path)) for path in job.options.tasks]
    folder = (job.baseline or job.artefact).path
    options = job.options
    result.add(*measure_tasks(ours, theirs, tasks, folder, seed=options.seed, progress=job.progress))


def _defaults(source: DataSource, ours: Runner, theirs: Runner | None) -> list[str]:
    names = default_metrics(source, ours.outputs)
    return names if theirs is not None else [name for name in names if not get_metric(name).needs_baseline]


def _feed(runs: Sequence[_Run], theirs: Runner | None) -> Feeds | None:
    """The inputs of timed inferences, the same for all; None where nothing is timed."""
    asking = [run for run in runs if run.asks("latency", "load", "memory")]
    for run in asking:
        with run.attempt():
            run.fed = _takes_inputs(run, theirs)
    fed = [run for run in asking if run.fed]
    if not fed:
        return None
    try:
        return _common_feeds(fed, theirs)
    except EdgeqError as error:
        _end(fed, error)
        return None


def _end(runs: Sequence[_Run], error: EdgeqError) -> None:
    for run in runs:
        run.error = error


def _takes_inputs(run: _Run, theirs: Runner | None) -> bool:
    """Whether the artefact runs beside the baseline; where random inputs do not do, failures say so."""
    job, runners = run.job, _runners([run], theirs)
    if job.source is not None:
        latency_feeds(runners, job.source, replace(job.options, latency_samples=1))
        return True
    try:
        feeds = latency_feeds(runners, None, job.options)
        for runner in runners:
            runner.run(feeds.inputs[0])
    except EdgeqError as error:
        reason = f"without evaluation data the model would have to run on random inputs: {error}"
        run.result.failures.update(dict.fromkeys(names_of("latency", "load", "memory"), reason))
        return False
    run.result.notes.append(
        f"Latency and memory are measured on {feeds.origin}: no evaluation data was given."
    )
    return True


def _common_feeds(runs: Sequence[_Run], theirs: Runner | None) -> Feeds:
    # Random inputs have the sizes that the first runner declares: the one that leaves the fewest free.
    runners = sorted(_runners(runs, theirs), key=_free_dimensions)
    return latency_feeds(runners, runs[0].job.source, runs[0].job.options)


def _runners(runs: Sequence[_Run], theirs: Runner | None) -> list[Runner]:
    ours = [run.runner for run in runs if run.runner is not None]
    return ours if theirs is None else [*ours, theirs]


def _free_dimensions(runner: Runner) -> int:
    return sum(not isinstance(size, int) for spec in runner.inputs for size in spec.shape or ())


def _add_placement(job: _Job, result: Measurements) -> None:
    target, path = job.artefact.target, job.artefact.path
    if ":" in target or path.suffix == ".onnx":
        return
    from edgeq.targets.registry import get_target

    for name, value in get_target(target).shares(path).items():
        result.add(resource(name, value))


def _add_latencies(runs: Sequence[_Run], theirs: Runner | None, feeds: Feeds) -> None:
    """Every artefact and the baseline in turns, so that whatever slows the machine hits all of them."""
    timed = [run for run in runs if run.fed and run.asks("latency")]
    if not timed:
        return
    job = timed[0].job
    try:
        series = time_in_turns(_runners(timed, theirs), feeds, job.options, job.progress)
    except EdgeqError as error:
        _end(timed, error)
        return
    reference = None if theirs is None else series[-1]
    for run, times in zip(timed, series[: len(timed)], strict=True):
        with run.attempt():
            _add_latency(run, Timing(times, reference), feeds)


def _add_latency(run: _Run, timing: Timing, feeds: Feeds) -> None:
    job = run.job
    run.times = timing.artefact
    run.result.add(*latency_measurements(timing, feeds, threads=job.artefact.threads, seed=job.options.seed))
    ours = run.runner
    if ours is not None and isinstance(ours, DeviceRunner):
        original = None if job.baseline is None else job.baseline.path
        report = ours.measure_device(original, feeds.inputs, job.options, job.progress)
        run.result.add(*report.measurements)
        run.result.findings.extend(report.findings)
        run.result.notes.extend(report.notes)


def _add_generation(runs: Sequence[_Run], theirs: Runner | None) -> None:
    """Every artefact that writes text and the baseline in turns."""
    writing = [
        (run, run.runner)
        for run in runs
        if run.asks("generation") and isinstance(run.runner, GeneratingRunner)
    ]
    if not writing:
        return
    job = writing[0][0].job
    runners: list[GeneratingRunner] = [runner for _, runner in writing]
    reference: list[GeneratingRunner] = [theirs] if isinstance(theirs, GeneratingRunner) else []
    try:
        prompts = prompts_of(runners[0], job.source, job.options)
        rounds = time_generation([*runners, *reference], prompts, job.options, job.progress)
    except EdgeqError as error:
        _end([run for run, _ in writing], error)
        return
    baseline: Rounds | None = rounds[-1] if reference else None
    for (run, _), ours in zip(writing, rounds, strict=False):
        threads = job.artefact.threads
        run.result.add(*generation_measurements(ours, baseline, prompts, job.options, threads=threads))


def _add_fresh(runs: Sequence[_Run], baseline: Subject | None, feeds: Feeds) -> None:
    asking = [run for run in runs if run.fed and run.asks("load", "memory")]
    if not asking:
        return
    job = asking[0].job
    subjects = [run.job.artefact for run in asking]
    found = run_fresh(
        subjects if baseline is None else [*subjects, baseline],
        feeds.inputs[0],
        options=job.options,
        progress=job.progress,
    )
    theirs = None if baseline is None else found[-1]
    for run, ours in zip(asking, found[: len(asking)], strict=True):
        with run.attempt():
            _add_process_runs(run, _required(ours), None if theirs is None else _required(theirs))


def _add_process_runs(run: _Run, ours: list[ProcessRun], theirs: list[ProcessRun] | None) -> None:
    if run.job.asks("load"):
        run.result.add(load_time(ours, theirs))
    if run.job.asks("memory"):
        run.result.add(*peak_memory(ours, theirs))


def _required(found: list[ProcessRun] | TargetError) -> list[ProcessRun]:
    if isinstance(found, TargetError):
        raise found
    return found


def _explain_what_is_missing(job: _Job, wanted: _Wanted, result: Measurements) -> None:
    """A reason for everything that was named and has no value."""
    for name in wanted.named:
        if name not in result and name not in result.failures:
            result.failures[name] = why_missing(name, job.artefact.target, job.options.parts)
