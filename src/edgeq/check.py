"""The CI gate: compile and judge every target of an ``edgeq.toml``, whatever becomes of the others."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgeq.api import artefact_path, compile_order
from edgeq.benchmarks import gate
from edgeq.building import Material, SourceSpec, check_start, make_order
from edgeq.config import Config, TargetEntry
from edgeq.errors import BudgetMissedError, EdgeqError, UsageError, as_edgeq_error
from edgeq.progress import Progress, SilentProgress
from edgeq.result import CompileResult
from edgeq.targets.base import NodeResult
from edgeq.targets.registry import get_target

# A model as a graph (False) and as a checkpoint (True); targets take one or the other.
_Materials = Mapping[bool, Material]


@dataclass(frozen=True)
class Outcome:
    """What became of one target: a result, or the error that ended it. ``seconds`` is the time it took."""

    entry: TargetEntry
    result: CompileResult | None
    error: EdgeqError | None
    seconds: float

    @property
    def passed(self) -> bool:
        """Compiled, and every budget kept."""
        return self.result is not None and self.result.passed

    @property
    def missed_nodes(self) -> list[NodeResult]:
        """Nodes that were planned quantized and run in float."""
        return [] if self.result is None else self.result.manifest.missed

    @property
    def exit_code(self) -> int:
        """0, 1 for a missed budget, else the error's own code."""
        if self.error is not None:
            return self.error.exit_code
        return 0 if self.passed else BudgetMissedError.exit_code


@dataclass(frozen=True)
class CheckResult:
    """All targets of a file, in its order."""

    config: Config
    outcomes: tuple[Outcome, ...]

    @property
    def gate(self) -> gate.Gate:
        """The verdicts of all targets, for tables and reports."""
        return gate.Gate(tuple(_gated(outcome) for outcome in self.outcomes))

    @property
    def passed(self) -> bool:
        """Whether every target compiled and keeps its budgets."""
        return self.gate.passed

    @property
    def exit_code(self) -> int:
        """The worst of all targets."""
        return max((outcome.exit_code for outcome in self.outcomes), default=0)


def _gated(outcome: Outcome) -> gate.Outcome:
    result, error = outcome.result, outcome.error
    return gate.Outcome(
        name=outcome.entry.name,
        target=outcome.entry.target,
        verdicts=() if result is None else tuple(result.verdicts),
        measurements=None if result is None else result.measurements,
        error=None if error is None else str(error),
        seconds=outcome.seconds,
    )


def run_check(
    config: Config,
    *,
    only: Sequence[str] = (),
    force: bool = False,
    progress: Progress | None = None,
) -> CheckResult:
    """Compile, measure and judge every target of ``config``, or those called ``only``.

    The model and its data are read once. An error of one target does not stop the others; it is that
    target's outcome.

    Raises:
        UsageError: an unknown target, or an ``only`` that names none; before any work.
    """
    entries = _chosen(config, only)
    for name in {entry.target for entry in entries}:
        get_target(name)
    progress = progress or SilentProgress()
    materials = {
        kind: Material(replace(_source(config), checkpoint=kind), progress) for kind in (False, True)
    }
    outcomes = []
    for position, entry in enumerate(entries, 1):
        with progress.task(f"{entry.name} for {entry.target}, {position} of {len(entries)}"):
            outcomes.append(_outcome(config, entry, materials, force or config.overwrite))
    for material in materials.values():
        material.discard()
    return CheckResult(config, tuple(outcomes))


def _chosen(config: Config, only: Sequence[str]) -> list[TargetEntry]:
    names = [entry.name for entry in config.targets]
    for name in only:
        if name not in names:
            raise UsageError(
                f"{config.path.name} has no target called {name!r}.", fix=f"It has: {', '.join(names)}."
            )
    return [entry for entry in config.targets if not only or entry.name in only]


def _source(config: Config) -> SourceSpec:
    return SourceSpec(
        config.model,
        config.calibration,
        config.evaluation,
        config.preprocessing,
        config.data_options,
        task=config.task,
    )


def _outcome(config: Config, entry: TargetEntry, materials: _Materials, force: bool) -> Outcome:
    begin = time.monotonic()
    result, error = None, None
    try:
        result = _compile(config, entry, materials, force)
    except Exception as found:  # noqa: BLE001 (a defect in one target must not hide the others' verdicts)
        error = as_edgeq_error(found)
    return Outcome(entry, result, error, time.monotonic() - begin)


def _compile(config: Config, entry: TargetEntry, materials: _Materials, force: bool) -> CompileResult:
    place = artefact_path(config.model, entry.target, entry.output)
    order = make_order(
        entry.target, entry.recipe, entry.options, place, strict=entry.strict, threads=config.threads
    )
    check_start(order, config.calibration, force=force)
    material = materials[order.checkpoint]
    return compile_order(
        order,
        material,
        config.metrics,
        entry.budgets,
        config.bench,
        force=force,
        progress=material.progress,
    )
