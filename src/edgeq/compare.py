"""One model for several targets: each compiled, all measured beside one FP32 baseline, and compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeq.api import DEFAULT_BENCH, chosen_recipe, output_prefix, parsed_budgets
from edgeq.artefact import artefact_folder
from edgeq.benchmarks.budgets import Budget
from edgeq.benchmarks.harness import Together, measure_together
from edgeq.benchmarks.measurement import Measurements
from edgeq.benchmarks.options import BenchOptions
from edgeq.benchmarks.subject import Subject
from edgeq.building import (
    Material,
    Order,
    SourceSpec,
    build,
    check_start,
    make_order,
)
from edgeq.calibration.data import DataOptions
from edgeq.calibration.preprocess import Preprocessing
from edgeq.candidates import QUANTIZER, candidates
from edgeq.comparison import Comparison, Row
from edgeq.comparison_report import refuse_reports, write_comparison
from edgeq.compiler.model import Model
from edgeq.compiler.pipeline import Prepared
from edgeq.compiler.recipe import Recipe
from edgeq.errors import ConfigError, TargetError, UsageError, as_edgeq_error
from edgeq.machine import usable_cores
from edgeq.manifest import Compiling, Manifest
from edgeq.progress import Progress, SilentProgress
from edgeq.proof import Proof, baseline_of, result, write
from edgeq.targets.registry import expand_targets
from edgeq.winner import Contender, choose_winner


def compile_many(
    model: Any,
    *,
    targets: Sequence[str],
    quantizers: Sequence[str] = (),
    scheme: str | None = None,
    recipe: Recipe | None = None,
    target_options: Mapping[str, str] | None = None,
    calibration: Any = None,
    evaluation: Any = None,
    preprocessing: Preprocessing | str | None = None,
    data_options: DataOptions | None = None,
    budgets: Sequence[str | Budget] = (),
    metrics: Sequence[str] = (),
    output: Path | str | None = None,
    force: bool = False,
    strict: bool = False,
    threads: int | None = None,
    bench: BenchOptions | None = DEFAULT_BENCH,
    example_inputs: Any = None,
    task: str | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compile ``model`` for several targets and compare the artefacts; arguments as :func:`edgeq.compile`.

    The model is loaded and normalized once and the data is opened once. Latency is timed in turns, all
    artefacts and the FP32 original in one process, at ``threads`` or, without it, at every core and at one.
    A target that refuses or fails is a row with its reason and does not stop the others.

    Args:
        targets: names, lists with commas, or families such as ``all-cpu``.
        quantizers: whose methods quantize (``edgeq``, ``nncf``), for targets that can choose.
        target_options: ``TARGET.KEY`` goes to that target, any other KEY to every target that has it.

    Raises:
        UsageError: what is wrong with the request itself, whatever the target.
        ModelError: the model cannot be read or would change its results.
        DataError: data that is missing or cannot be used.
    """
    progress = progress or SilentProgress()
    wanted = chosen_recipe(scheme, recipe)
    gate = parsed_budgets(budgets, bench)
    named = candidates(expand_targets(targets), quantizers, target_options or {}, wanted)
    prefix = output_prefix(model, output)
    rows = [Row(candidate) for candidate in named]

    works = [work for row in rows if (work := _ordered(row, wanted, prefix, strict, threads)) is not None]
    for work in works:
        check_start(work.order, calibration, force=force)
    refuse_reports(prefix, force=force)
    if works:
        checkpoint = _one_kind([work.order for work in works])
        spec = SourceSpec(
            model, calibration, evaluation, preprocessing, data_options, example_inputs, task, checkpoint
        )
        proofs = _Proofs(tuple(metrics) or None, gate, threads, bench)
        _work(works, Material(spec, progress), proofs, force, progress)

    winner = choose_winner(_contenders(rows), budgets=bool(gate))
    found = Comparison(prefix.name, wanted, prefix, threads or usable_cores(), tuple(rows), winner)
    write_comparison(found)
    return found


def _one_kind(orders: Sequence[Order]) -> bool:
    """Whether all targets store checkpoints; raises UsageError where only some do."""
    storing = [order.target.name for order in orders if order.checkpoint]
    if storing and len(storing) < len(orders):
        raise UsageError(
            f"{', '.join(storing)} store a language model's checkpoint, the other targets compile a graph.",
            fix="Compile for them in two commands.",
        )
    return bool(storing)


@dataclass
class _Work:
    """A row that is worked on: what is asked of its target, and what is there of it."""

    row: Row
    order: Order
    proof: Proof | None = None
    manifest: Manifest | None = None
    compiling: Compiling | None = None

    @property
    def built(self) -> Manifest:
        """The manifest of an artefact that is there."""
        assert self.manifest is not None
        return self.manifest

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """What the target says that it does not do is its row's refusal."""
        try:
            yield
        except TargetError as error:
            self.row.error, self.row.refused = error, True

    @contextmanager
    def failing(self) -> Iterator[None]:
        """An error inside is this row's, not that of the others."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 (a defect in one target must not hide the others)
            self.row.error = as_edgeq_error(error)


@dataclass(frozen=True)
class _Proofs:
    """How every artefact is measured; None measures nothing."""

    metrics: tuple[str, ...] | None
    budgets: tuple[Budget, ...]
    threads: int | None
    options: BenchOptions | None

    def of(self, material: Material) -> Proof | None:
        """The proof on the evaluation data."""
        if self.options is None:
            return None
        return Proof(material.data.evaluation, self.metrics, self.budgets, self.threads, self.options)


def _ordered(row: Row, recipe: Recipe, prefix: Path, strict: bool, threads: int | None) -> _Work | None:
    """What is asked of a row's target; None when it refuses.

    Raises:
        ConfigError: an option that is wrong by itself.
    """
    candidate = row.candidate
    place = prefix.with_name(f"{prefix.name}-{candidate.suffix}")
    try:
        order = make_order(candidate.target, recipe, candidate.options, place, strict=strict, threads=threads)
    except ConfigError:
        raise
    except (TargetError, UsageError) as error:
        row.error, row.refused = error, True
        return None
    row.quantizer = _quantizer(order)
    return _Work(row, order)


def _quantizer(order: Order) -> str:
    """Whose methods quantize: the option's, edgeq's, or those of the target itself."""
    own = "edgeq" if order.target.quantizer(order.options) is None else order.target.name
    return order.given.get(QUANTIZER, own)


def _work(
    works: Sequence[_Work], material: Material, proofs: _Proofs, force: bool, progress: Progress
) -> None:
    """Load once, build every artefact, then measure all that are there."""
    original = material.original
    for work in works:
        with work.refusing():
            work.order.target.check_model(original, work.order.options)
    works = _left(works)
    if not works:
        return
    for work in works:
        work.proof = proofs.of(material)
        if work.proof is not None:
            with work.refusing():
                work.proof.check(original.outputs, work.order.target)
    works = _left(works)
    if not works:
        return
    # Outside of the loop: what is wrong with the model itself is no target's error.
    shared = material.prepared
    for position, work in enumerate(works, 1):
        with (
            progress.task(f"Compiling for {work.row.candidate.name}, {position} of {len(works)}"),
            work.failing(),
        ):
            _build(work, shared, force, progress)
    if proofs.options is not None:
        _measure(_left(works), original, progress)


def _left(works: Sequence[_Work]) -> list[_Work]:
    return [work for work in works if work.row.error is None]


def _build(work: _Work, shared: tuple[Prepared, Compiling], force: bool, progress: Progress) -> None:
    place = work.order.place
    with artefact_folder(place, force=force) as folder:
        work.manifest, work.compiling = build(work.order, shared, folder, progress)
        write(work.manifest, folder)
    work.row.result = result(place, work.manifest, work.compiling)


def _measure(works: Sequence[_Work], original: Model, progress: Progress) -> None:
    """Measure all artefacts beside the original, write down what was found, then time them at one thread."""
    proofs = [work.proof for work in works if work.proof is not None]
    if not proofs:
        return
    proof = proofs[0]
    subjects = [proof.subject(work.built, work.order.place) for work in works]
    options = [proof.possible(work.order.target)[0] for work in works]
    with baseline_of(original, proof.threads) as baseline:
        found = measure_together(
            subjects,
            baseline,
            source=proof.evaluation,
            metrics=proof.metrics,
            budgets=proof.budgets,
            options=options,
            progress=progress,
        )
        for work, together in zip(works, found, strict=True):
            _note(work, proof, together)
        timed = [i for i, work in enumerate(works) if work.row.times is not None]
        if timed and baseline is not None and proof.threads is None and usable_cores() > 1:
            rows = [works[i].row for i in timed]
            _time_one_thread(rows, [subjects[i] for i in timed], baseline, proof, progress)


def _note(work: _Work, proof: Proof, together: Together) -> None:
    """Write what was measured into the artefact, or keep the error that ended it."""
    row = work.row
    if together.error is not None:
        row.error = as_edgeq_error(together.error)
        return
    manifest = proof.section(work.built, together.measurements, work.compiling)
    write(manifest, work.order.place)
    row.result, row.times = result(work.order.place, manifest), together.times


def _time_one_thread(
    rows: Sequence[Row], subjects: Sequence[Subject], baseline: Subject, proof: Proof, progress: Progress
) -> None:
    options = replace(proof.options, parts=("latency",))
    found = measure_together(
        [replace(subject, threads=1) for subject in subjects],
        replace(baseline, threads=1),
        source=proof.evaluation,
        options=[options] * len(subjects),
        progress=progress,
    )
    for row, together in zip(rows, found, strict=True):
        row.one_thread = together.measurements if together.error is None else Measurements()


def _contenders(rows: Sequence[Row]) -> list[Contender]:
    """The artefacts that could be measured."""
    return [
        Contender(
            row.candidate.name, row.passed, row.result.manifest.size, row.times, row.result.measurements
        )
        for row in rows
        if row.result is not None and row.error is None
    ]
