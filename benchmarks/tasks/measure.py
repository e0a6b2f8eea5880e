"""Runs tasks on the artefact and on the FP32 baseline, and compares them question by question."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.benchmarks.measurement import Measurement
from edgeq.benchmarks.metrics.base import Scores
from edgeq.benchmarks.metrics.compare import RESAMPLES, TAIL, newcombe_interval
from edgeq.benchmarks.tasks.bare import without_environment
from edgeq.benchmarks.tasks.files import TaskFile
from edgeq.benchmarks.tasks.names import direction_of, task_metric, unit_of
from edgeq.benchmarks.tasks.offline import offline
from edgeq.errors import DataError, EdgeqError
from edgeq.progress import Progress
from edgeq.quiet import quiet, reason
from edgeq.targets.base import Runner


@dataclass(frozen=True)
class _Answers:
    """What lm-eval says of one model: results, and a number per question and metric where there is one."""

    results: Mapping[str, Any]
    higher_is_better: Mapping[str, bool | None]
    samples: Sequence[Mapping[str, Any]]

    def numbers(self, key: str) -> Scores | None:
        """The metric of every question, in order; None where it is no mean of such numbers."""
        metric, _, chosen = key.partition(",")
        found = [(s["doc_id"], s.get(metric)) for s in self.samples if s.get("filter", chosen) == chosen]
        if not found or not all(isinstance(value, Real) for _, value in found):
            return None
        numbers = np.array([float(value) for _, value in sorted(found)])  # type: ignore[arg-type]
        return numbers if np.isclose(numbers.mean(), self.results[key]) else None


def measure_tasks(
    artefact: Runner,
    baseline: Runner | None,
    tasks: Sequence[TaskFile],
    folder: Path,
    *,
    seed: int,
    progress: Progress,
) -> list[Measurement]:
    """Every metric of every task; ``folder`` holds the model's tokenizer and configuration.

    Raises:
        DataError: a task or the tokenizer cannot be used.
        EdgeqError: a model cannot be run, or a task asks for what would not be reproducible.
    """
    found: list[Measurement] = []
    for task in tasks:
        with _loaded(task) as loaded:
            ours = _answers(artefact, task, loaded, folder, progress)
            theirs = None if baseline is None else _answers(baseline, task, loaded, folder, progress)
        found += _measurements(task, ours, theirs, seed)
    return found


@contextmanager
def _loaded(task: TaskFile) -> Iterator[Any]:
    """lm-eval's task with its data, which lie in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="edgeq-tasks-") as name:
        with _lm_eval(task):
            from lm_eval.tasks import TaskManager

            manager = TaskManager(include_defaults=False)
            loaded = manager.load([str(_with_local_data(task, Path(name)))])["tasks"][task.name]
        yield loaded


def _answers(runner: Runner, task: TaskFile, loaded: Any, folder: Path, progress: Progress) -> _Answers:
    with progress.task(f"Task {task.name}", None) as advance, _lm_eval(task), without_environment():
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager

        from edgeq.benchmarks.tasks.model import RunnerModel

        result = simple_evaluate(
            RunnerModel(runner, folder, advance),
            tasks=[loaded],
            task_manager=TaskManager(include_defaults=False),
            bootstrap_iters=1000,
            # The caller's random numbers are not ours to seed.
            random_seed=None,
            numpy_random_seed=None,
            torch_random_seed=None,
        )
    return _Answers(
        result["results"][task.name],
        result["higher_is_better"].get(task.name, {}),
        result["samples"].get(task.name, []),
    )


@contextmanager
def _lm_eval(task: TaskFile) -> Iterator[None]:
    """Quiet, without the network, and with one sentence for whatever goes wrong."""
    try:
        with quiet(), offline():
            yield
    except EdgeqError:
        raise
    except Exception as error:  # lm-eval, datasets and a task's own functions fail in any way
        raise DataError(
            f"The task {task.path} cannot be run: {reason(error)}.", fix="Correct the task or its data."
        ) from error


def _with_local_data(task: TaskFile, folder: Path) -> Path:
    """A task file in ``folder`` that includes the user's, with absolute paths and a cache of its own."""
    data = {**task.dataset, "cache_dir": str(folder / "cache")}
    # JSON is YAML.
    content = {"include": str(task.path.resolve()), "task": task.name, "dataset_kwargs": data}
    path = folder / "task.yaml"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def _measurements(task: TaskFile, ours: _Answers, theirs: _Answers | None, seed: int) -> list[Measurement]:
    keys = [key for key, value in ours.results.items() if _is_result(key, value)]
    return [_measurement(task, key, ours, theirs, seed) for key in keys]


def _is_result(key: str, value: object) -> bool:
    metric, comma, _ = key.partition(",")
    return bool(comma) and not metric.endswith("_stderr") and isinstance(value, Real)


def _measurement(task: TaskFile, key: str, ours: _Answers, theirs: _Answers | None, seed: int) -> Measurement:
    metric = key.partition(",")[0]
    said = ours.higher_is_better.get(metric)
    known = direction_of(metric) if said is None else said
    detail: dict[str, Any] = {"task": str(task.path), "stderr": _stderr(ours, key)}
    numbers = ours.numbers(key)
    if numbers is not None:
        detail["samples"] = len(numbers)
    if theirs is not None:
        detail["baseline_stderr"] = _stderr(theirs, key)
    interval = None if theirs is None else _interval(numbers, theirs.numbers(key), seed)
    return Measurement(
        task_metric(task.name, key),
        float(ours.results[key]),
        None if theirs is None else float(theirs.results[key]),
        unit_of(metric),
        higher_is_better=known is not False,
        interval=interval,
        interval_of="difference",
        detail=detail,
    )


def _stderr(answers: _Answers, key: str) -> float | None:
    metric, _, chosen = key.partition(",")
    found = answers.results.get(f"{metric}_stderr,{chosen}")
    return float(found) if isinstance(found, Real) else None


def _interval(ours: Scores | None, theirs: Scores | None, seed: int) -> tuple[float, float] | None:
    """95 % interval of the difference, paired by question."""
    if ours is None or theirs is None or len(ours) != len(theirs):
        return None
    if np.isin(ours, (0, 1)).all() and np.isin(theirs, (0, 1)).all():
        return newcombe_interval(theirs, ours)
    differences = ours - theirs
    generator = np.random.default_rng(seed)
    count = len(differences)
    drawn = [differences[generator.integers(0, count, count)].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(drawn, [TAIL, 100 - TAIL])
    return float(low), float(high)
