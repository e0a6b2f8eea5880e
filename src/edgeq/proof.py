"""Measuring an artefact beside its FP32 baseline, and writing down what was found."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeq.benchmarks.budgets import Budget
from edgeq.benchmarks.harness import measure
from edgeq.benchmarks.measurement import Measurements
from edgeq.benchmarks.metric_info import RESOURCES
from edgeq.benchmarks.metrics import get_metric
from edgeq.benchmarks.options import PARTS, BenchOptions
from edgeq.benchmarks.parts import part_of
from edgeq.benchmarks.subject import Subject
from edgeq.benchmarks.tasks.names import is_task_metric, task_of
from edgeq.benchmarks.verdicts import judge
from edgeq.calibration.types import DataSource, TensorSpec
from edgeq.compiler.load import load, open_checkpoint
from edgeq.compiler.load.checkpoint import Checkpoint
from edgeq.compiler.model import Model, Source, save
from edgeq.data_notes import same_text_note
from edgeq.errors import EdgeqError, TargetError, UsageError
from edgeq.machine import this_machine
from edgeq.manifest import REPORT_FILE, Compiling, Manifest, Measured
from edgeq.progress import Progress
from edgeq.report import write_report
from edgeq.result import CompileResult
from edgeq.targets.base import Measurable, Target
from edgeq.targets.registry import get_target

BASELINE_TARGET = "onnxruntime"
BASELINE_FILE = "model.onnx"
# Runs a checkpoint in float32.
CHECKPOINT_RUNNER = "edgeq.targets.language.float_runner:open_float"


@dataclass(frozen=True)
class Proof:
    """What is to be measured and judged, and how."""

    evaluation: DataSource | None
    metrics: tuple[str, ...] | None
    budgets: tuple[Budget, ...]
    threads: int | None
    options: BenchOptions

    def check(self, outputs: Sequence[TensorSpec], target: Target) -> None:
        """Refuse metrics that make no sense for the data or cannot be measured here, before any work.

        Raises:
            UsageError: an unknown metric, one that does not fit the task, or one without data.
            TargetError: a metric that the target cannot be asked for on this machine.
        """
        possible = target.measurable()
        self._check_tasks()
        named = [*(self.metrics or ()), *(b.metric for b in self.budgets)]
        for name in dict.fromkeys(named):
            if part_of(name) not in possible.parts:
                raise TargetError(
                    f"{name} of target {target.name!r} cannot be measured here: {_why(possible)}.",
                    fix="Measure it there, or leave the budget or metric out.",
                )
            if name in RESOURCES or is_task_metric(name):
                continue
            if self.evaluation is None:
                raise UsageError(
                    f"Metric {name!r} needs evaluation data and none was given.",
                    fix="Give it with --evaluation (evaluation= in Python).",
                )
            get_metric(name).check(self.evaluation, outputs)

    def _check_tasks(self) -> None:
        """Refuse tasks that cannot be read, and metrics of tasks that are not given."""
        from edgeq.benchmarks.tasks.files import read_task

        if self.options.tasks and "accuracy" not in self.options.parts:
            raise UsageError("Tasks of lm-eval are part of measuring accuracy.", fix="Measure accuracy too.")
        tasks = [read_task(Path(path)).name for path in self.options.tasks]
        for name in [*(self.metrics or ()), *(budget.metric for budget in self.budgets)]:
            if is_task_metric(name) and task_of(name) not in tasks:
                raise UsageError(
                    f"Metric {name!r} is of a task that is not given.",
                    fix="Give its file with --lm-eval-tasks (BenchOptions.tasks in Python).",
                )

    def measured(
        self,
        manifest: Manifest,
        folder: Path,
        original: Model | None,
        progress: Progress,
        *notes: str,
        compiling: Compiling | None,
    ) -> Manifest:
        """``manifest`` with a new ``measured`` section for the artefact in ``folder``.

        Raises:
            EdgeqError: see :func:`edgeq.benchmarks.harness.measure`.
        """
        options, _ = self.possible(get_target(manifest.target))
        with baseline_of(original, self.threads) as baseline:
            found = measure(
                self.subject(manifest, folder),
                baseline,
                source=self.evaluation,
                metrics=self.metrics,
                budgets=self.budgets,
                options=options,
                progress=progress,
            )
        found.notes.extend(notes)
        return self.section(manifest, found, compiling)

    def subject(self, manifest: Manifest, folder: Path) -> Subject:
        """The artefact in ``folder`` for the harness."""
        return Subject(manifest.target, folder, tuple(f.path for f in manifest.files), self.threads)

    def section(self, manifest: Manifest, found: Measurements, compiling: Compiling | None) -> Manifest:
        """``manifest`` with ``found``, judged, and the notes that belong to the target and this machine."""
        target = get_target(manifest.target)
        options, limits = self.possible(target)
        advice = target.machine_note(manifest.recipe.scheme) if "latency" in options.parts else None
        evaluation = None if self.evaluation is None else self.evaluation.describe()
        leak = _leak(manifest, target, evaluation)
        found.notes.extend([*limits, *(note for note in (advice, leak) if note)])
        section = Measured.of(
            found,
            judge(self.budgets, found),
            machine=this_machine(),
            options=self.described(options),
            evaluation=evaluation,
            runner=target.runner_kind(),
            compiling=compiling,
        )
        return manifest.model_copy(update={"measured": section})

    def described(self, options: BenchOptions) -> dict[str, Any]:
        """How it is measured, with a hash of the tasks: their files may change in place."""
        found = {**options.to_json(), "threads": self.threads}
        if not options.tasks:
            return found
        from edgeq.benchmarks.tasks.files import tasks_sha256

        return {**found, "tasks_sha256": tasks_sha256(map(Path, options.tasks))}

    def possible(self, target: Target) -> tuple[BenchOptions, list[str]]:
        """The options without the parts that this machine cannot measure, and the sentence that says so."""
        possible = target.measurable()
        # What only some targets have is missed only where it was asked for.
        special = {"placement", "generation"} if self.options.parts == PARTS else {"placement"}
        left_out = [part for part in self.options.parts if part not in {*possible.parts, *special}]
        parts = tuple(part for part in self.options.parts if part in possible.parts)
        if not left_out:
            return replace(self.options, parts=parts), []
        names = ", ".join(left_out)
        return replace(self.options, parts=parts), [f"Not measured here ({names}): {_why(possible)}."]


def _leak(manifest: Manifest, target: Target, evaluation: dict[str, Any] | None) -> str | None:
    capabilities = target.capabilities(target.options(manifest.options, manifest.recipe))
    return same_text_note(manifest.recipe, capabilities, manifest.calibration, evaluation)


def _why(possible: Measurable) -> str:
    return possible.reason or "it runs no language model token by token"


@contextmanager
def baseline_of(
    original: Model | None, threads: int | None, states: Path | None = None
) -> Iterator[Subject | None]:
    """The FP32 original in a folder of its own, for as long as it is measured.

    ``states``: where a checkpoint's runner keeps what it has computed (:class:`Subject`).
    """
    if original is None:
        yield None
        return
    if original.is_checkpoint:
        place = Path(original.source.location)
        names = tuple(file.name for file in Checkpoint(place).files)
        yield Subject(CHECKPOINT_RUNNER, place, names, threads, states)
        return
    with tempfile.TemporaryDirectory(prefix="edgeq-baseline-") as folder:
        files = save(original, Path(folder) / BASELINE_FILE)
        yield Subject(BASELINE_TARGET, Path(folder), tuple(f.name for f in files), threads)


def find_baseline(source: Source, given: Any, progress: Progress) -> tuple[Model | None, str | None]:
    """The FP32 original of an artefact, or None and the sentence that says why there is no baseline."""
    checkpoint = source.details.get("form") == "checkpoint"
    if given is not None:
        return open_checkpoint(given, None, progress) if checkpoint else load(given, progress=progress), None
    if checkpoint and not Path(source.location).exists():
        return None, f"No FP32 baseline: {source.location}, which was compiled, is not there any more."
    try:
        found = (
            open_checkpoint(source.location, None, progress)
            if checkpoint
            else load(source.location, progress=progress)
        )
    except EdgeqError as error:
        return None, f"No FP32 baseline: {source.location} cannot be loaded again ({error.what})"
    if found.source.sha256 != source.sha256:
        return None, f"No FP32 baseline: {source.location} is not the model that was compiled any more."
    return found, None


def write(manifest: Manifest, folder: Path) -> None:
    """Write manifest and report into the artefact folder."""
    write_report(manifest, folder / REPORT_FILE)
    manifest.write(folder)


def result(folder: Path, manifest: Manifest, compiling: Compiling | None = None) -> CompileResult:
    """The artefact in ``folder`` with what its manifest holds; ``compiling`` where nothing was measured."""
    measured = manifest.measured
    if measured is None:
        return CompileResult(folder, manifest, Measurements(), [], compiling)
    found = measured.as_measurements()
    return CompileResult(folder, manifest, found, measured.verdicts, measured.compiling)
