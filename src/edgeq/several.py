"""One model for several targets: each compiled, all measured beside one FP32 baseline, and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeq.api import DEFAULT_BENCH, chosen_recipe, output_prefix, parsed_budgets
from edgeq.benchmarks.budgets import Budget
from edgeq.benchmarks.harness import measure_together
from edgeq.benchmarks.measurement import Measurements
from edgeq.benchmarks.options import BenchOptions
from edgeq.benchmarks.subject import Subject
from edgeq.building import Material, Order, SourceSpec, check_start
from edgeq.calibration.data import DataOptions
from edgeq.calibration.preprocess import Preprocessing
from edgeq.candidates import candidates
from edgeq.comparison import Comparison, Row
from edgeq.comparison_report import refuse_reports, write_comparison
from edgeq.compiler.model import Model
from edgeq.compiler.recipe import Recipe
from edgeq.errors import UsageError
from edgeq.machine import usable_cores
from edgeq.progress import Progress, SilentProgress
from edgeq.proof import Proof, baseline_of
from edgeq.rows import Proofs, Work, accepted, build_artefact, left, note, ordered
from edgeq.states import states_beside
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

    works = [work for row in rows if (work := ordered(row, wanted, prefix, strict, threads)) is not None]
    for work in works:
        check_start(work.order, calibration, force=force)
    refuse_reports(prefix, force=force)
    if works:
        checkpoint = _one_kind([work.order for work in works])
        spec = SourceSpec(
            model, calibration, evaluation, preprocessing, data_options, example_inputs, task, checkpoint
        )
        proofs = Proofs(tuple(metrics) or None, gate, threads, bench)
        material = Material(spec, progress)
        _work(works, material, proofs, force, progress)
        material.discard()

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


def _work(works: Sequence[Work], material: Material, proofs: Proofs, force: bool, progress: Progress) -> None:
    """Load once, build every artefact, then measure all that are there."""
    works = accepted(works, material, proofs)
    if not works:
        return
    # Outside of the loop: what is wrong with the model itself is no target's error.
    shared = material.prepared
    for position, work in enumerate(works, 1):
        with (
            progress.task(f"Compiling for {work.row.candidate.name}, {position} of {len(works)}"),
            work.failing(),
        ):
            build_artefact(work, shared, force, progress)
    if proofs.options is not None:
        _measure(left(works), material.original, progress)


def _measure(works: Sequence[Work], original: Model, progress: Progress) -> None:
    """Measure all artefacts beside the original, write down what was found, then time them at one thread."""
    proofs = [work.proof for work in works if work.proof is not None]
    if not proofs:
        return
    proof = proofs[0]
    subjects = [proof.subject(work.built, work.order.place) for work in works]
    options = [proof.possible(work.order.target)[0] for work in works]
    with (
        states_beside(works[0].order.place, original, len(works)) as states,
        baseline_of(original, proof.threads, states) as baseline,
    ):
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
            note(work, proof, together)
        timed = [i for i, work in enumerate(works) if work.row.times is not None]
        if timed and baseline is not None and proof.threads is None and usable_cores() > 1:
            rows = [works[i].row for i in timed]
            _time_one_thread(rows, [subjects[i] for i in timed], baseline, proof, progress)


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
