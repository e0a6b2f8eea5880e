"""Runs the worker in fresh processes and collects what they report."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgeq.benchmarks.options import BenchOptions
from edgeq.benchmarks.subject import Subject
from edgeq.benchmarks.worker import save_inputs
from edgeq.calibration.types import Array
from edgeq.errors import TargetError
from edgeq.processes import module_command, module_path, why_it_failed
from edgeq.progress import Advance, Progress


@dataclass(frozen=True)
class ProcessRun:
    """What one fresh process reported: seconds and bytes; see ``worker.measure_here``."""

    load: float
    first_run: float
    peak: int
    peak_process: int


def run_fresh(
    subjects: Sequence[Subject],
    inputs: dict[str, Array],
    *,
    options: BenchOptions,
    progress: Progress,
) -> list[list[ProcessRun] | TargetError]:
    """``options.processes`` runs of every subject, taking turns, or the error that ended its first bad one.

    A first process of each, which is not counted, finds out what its runtime imports (the others import
    that before the clock starts) and brings the files into the page cache.
    """
    total = len(subjects) * (options.processes + 1)
    with TemporaryDirectory(prefix="edgeq-") as name, progress.task("Fresh processes", total) as advance:
        folder = Path(name)
        save_inputs(folder / "inputs.npz", inputs)
        launch = _Launcher(folder, options, advance)
        series = [_Series(subject) for subject in subjects]
        for _ in range(options.processes + 1):
            for one in series:
                one.extend(launch)
    return [one.runs if one.error is None else one.error for one in series]


@dataclass
class _Series:
    """The runs of one subject so far; ``modules`` is None before the first."""

    subject: Subject
    modules: list[str] | None = None
    runs: list[ProcessRun] = field(default_factory=list)
    error: TargetError | None = None

    def extend(self, launch: _Launcher) -> None:
        """One process more, unless one has failed."""
        if self.error is not None:
            return
        try:
            found = launch.run(self.subject, self.modules or [])
        except TargetError as error:
            self.error = error
            return
        if self.modules is None:
            self.modules = found["modules"]
        else:
            self.runs.append(_process_run(found))


def _process_run(result: dict[str, Any]) -> ProcessRun:
    return ProcessRun(result["load"], result["first_run"], result["peak"], result["peak_process"])


@dataclass(frozen=True)
class _Launcher:
    folder: Path
    options: BenchOptions
    advance: Advance

    def run(self, subject: Subject, modules: list[str]) -> dict[str, Any]:
        request, result = self.folder / "request.json", self.folder / "result.json"
        result.unlink(missing_ok=True)
        request.write_text(json.dumps(self._request(subject, modules)), encoding="utf-8")
        command = module_command("edgeq.benchmarks.worker", (str(request), str(result)))
        try:
            ended = subprocess.run(
                command,
                env={**os.environ, **module_path()},
                capture_output=True,
                timeout=self.options.process_timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TargetError(
                f"Loading and running {subject.path} in a fresh process took more than "
                f"{self.options.process_timeout:g} s.",
                fix="Measure without load time and memory, or allow more time.",
            ) from error
        self.advance(1)
        return _read_result(result, subject, ended)

    def _request(self, subject: Subject, modules: list[str]) -> dict[str, Any]:
        return {
            "target": subject.target,
            "path": str(subject.path.absolute()),
            "threads": subject.threads,
            "inputs": str(self.folder / "inputs.npz"),
            "runs": self.options.process_runs,
            "modules": modules,
        }


def _read_result(path: Path, subject: Subject, ended: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    if ended.returncode != 0 or not path.is_file():
        why = why_it_failed(ended.returncode, ended.stderr)
        raise TargetError(f"{subject.path} fails in a fresh process: {why}.")
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if "error" in result:
        raise TargetError(f"{subject.path} fails in a fresh process: {result['error']}", fix=result["fix"])
    return result
