"""One language model by several methods in several formats: which one to ship, measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeq.api import output_prefix, parsed_budgets
from edgeq.artefact import check_output
from edgeq.benchmarks.budgets import Budget
from edgeq.benchmarks.harness import measure_together
from edgeq.benchmarks.options import BenchOptions
from edgeq.building import Material, SourceSpec
from edgeq.calibration.data import DataOptions
from edgeq.candidates import Candidate
from edgeq.comparison import Row
from edgeq.compiler.load.checkpoint import Checkpoint
from edgeq.compiler.model import Model
from edgeq.compiler.recipe import Recipe
from edgeq.compiler.weights.rules import CALIBRATED, missing_for_method
from edgeq.errors import TargetError, UsageError
from edgeq.language.advice import calibration_sentences, what_to_try
from edgeq.language.choices import METHODS, Axes, choose, text_names
from edgeq.language.comparison import LanguageComparison
from edgeq.language.engines import HARDWARE
from edgeq.language.measures import (
    default_metrics,
    default_parts,
    memory_of,
    option_of,
    options_for,
    point_of,
)
from edgeq.language.pages import refuse_foreign_pages, write_pages
from edgeq.language.pareto import dominated
from edgeq.language.recommendation import Place, Recommendation, recommend
from edgeq.language.reuse import finished, measured_again
from edgeq.language.run_memory import RunMemory
from edgeq.progress import Progress, SilentProgress
from edgeq.proof import baseline_of, result, write
from edgeq.rows import Proofs, Work, accepted, build_artefact, left, note, ordered
from edgeq.states import states_beside

# What is asked of every row when nobody says: most readers do not notice so much.
DEFAULT_BUDGET = "perplexity <= 105%"


def compare(
    model: Path | str,
    *,
    evaluation: Any,
    calibration: Any = (),
    methods: Sequence[str] = (),
    formats: Sequence[str] = (),
    bits: Sequence[int] = (),
    block_sizes: Sequence[int] = (),
    types: Sequence[str] = (),
    recipe_fields: Mapping[str, Any] | None = None,
    budgets: Sequence[str | Budget] = (),
    metrics: Sequence[str] = (),
    hardware: str | None = None,
    ram: int | None = None,
    context: int | None = None,
    data_options: DataOptions | None = None,
    output: Path | str | None = None,
    force: bool = False,
    threads: int | None = None,
    bench: BenchOptions | None = None,
    progress: Progress | None = None,
) -> LanguageComparison:
    """Compile a language model by every method in every format that stores it, and recommend one.

    One artefact after the other is built and measured beside the FP32 model; formats that take the same
    weights share one quantization. A run that was killed goes on where it stopped: artefacts that are there
    and were ordered in the same way are not made or measured again, unless ``force`` is given. An error of
    one row does not stop the others.

    Args:
        model: a Hugging Face folder with safetensors files.
        evaluation: text to measure on, in any form that :func:`edgeq.compile` takes.
        calibration: one text, or a list or tuple of texts, which are compared.
        methods: of ``rtn``, ``gptq``, ``awq``, ``nf4``; by default all that there is data for.
        formats: names of targets that store language models; by default all that this machine can write.
        bits: of ``8``, ``4``, ``3``, ``2``; by default 4.
        block_sizes: inputs that share a scale, -1 a whole channel; by default each format's own.
        types: of GGUF files that llama.cpp makes by itself, such as ``q4_k_m``.
        recipe_fields: further fields of the recipes, for those that read them: ``symmetric_weights``.
        budgets: what a row must keep; by default :data:`DEFAULT_BUDGET`.
        metrics: what to measure; by default perplexity and the divergence from FP32.
        hardware: where it is to run, one of :data:`edgeq.language.engines.HARDWARE`.
        ram: bytes that it may take there, at ``context`` tokens.
        context: tokens in the cache; by default what the model was made for, 4096 at most.
        output: prefix of the artefact folders and pages; by default ``build/<model's name>``.

    Raises:
        UsageError: what is wrong with the request itself.
        ModelError: the model cannot be read.
        DataError: data that is missing or cannot be used.
    """
    progress = progress or SilentProgress()
    place = _place(hardware, ram)
    options = bench or BenchOptions(parts=default_parts())
    gate = parsed_budgets(budgets or (DEFAULT_BUDGET,), options)
    texts = tuple(calibration) if isinstance(calibration, (list, tuple)) else (calibration,)
    texts = tuple(text for text in texts if text is not None)
    if evaluation is None:
        raise UsageError("Nothing to measure on was given.", fix="Give a text with --evaluation.")
    named, notes = _defaults(tuple(methods), texts, not budgets)
    axes = Axes(named, tuple(formats), tuple(bits), tuple(block_sizes), tuple(types), text_names(texts))
    choices = choose(axes, recipe_fields or {})
    prefix = output_prefix(model, output)
    rows = [Row(candidate) for candidate in choices.candidates]
    rows += [_vain(candidate, why) for candidate, why in choices.refused]
    refuse_foreign_pages(prefix)

    spec = SourceSpec(model, None, evaluation, None, data_options, checkpoint=True)
    base = Material(spec, progress)
    materials: dict[str | None, Material] = {None: base}
    for name, text in zip(axes.calibrations, texts, strict=True):
        materials[name] = base.with_calibration(text)
    proofs = Proofs(tuple(metrics) or default_metrics(), gate, threads, options)
    _run(rows, materials, proofs, prefix, force, progress)

    config = Checkpoint(Path(base.original.source.location)).config
    memory = {
        row.candidate.name: takes for row in rows if (takes := memory_of(row, config, context)) is not None
    }
    found = LanguageComparison(
        prefix.name,
        prefix,
        tuple(rows),
        _recommendation(rows, memory, place, axes),
        axes.calibrations,
        tuple(str(budget) for budget in gate),
        place,
        memory,
        dominated([point for row in rows if (point := point_of(row)) is not None]),
        choices.left_out,
        notes,
    )
    write_pages(found)
    return found


def _place(hardware: str | None, ram: int | None) -> Place:
    if hardware is not None and hardware not in HARDWARE:
        raise UsageError(f"Unknown hardware {hardware!r}.", fix=f"Choose of: {', '.join(HARDWARE)}.")
    return Place(hardware, ram)


def _defaults(
    methods: tuple[str, ...], texts: Sequence[Any], no_budgets: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The methods, and what was decided where nobody said.

    Raises:
        DataError: a method was named that needs a calibration text, and there is none.
    """
    notes = []
    if no_budgets:
        notes.append(f"No budget was given: a row must keep {DEFAULT_BUDGET} of FP32.")
    needing = [method for method in methods or METHODS if method in CALIBRATED]
    if texts or not needing:
        return methods, tuple(notes)
    if methods:
        raise missing_for_method(needing[0], text=True)
    notes.append(f"{' and '.join(needing)} are left out: they need a calibration text, and none was given.")
    return tuple(method for method in METHODS if method not in CALIBRATED), tuple(notes)


def _vain(candidate: Candidate, why: str) -> Row:
    error = TargetError(f"{why}.", fix="Leave it out, or name another format.")
    return Row(candidate, error=error, refused=True)


def _run(
    rows: Sequence[Row],
    materials: Mapping[str | None, Material],
    proofs: Proofs,
    prefix: Path,
    force: bool,
    progress: Progress,
) -> None:
    """Refuse what can be refused before any work, then build and measure row by row."""
    standard = Recipe(scheme="int4-weight")
    open_rows = [row for row in rows if row.error is None]
    works = [
        work
        for row in open_rows
        if (work := ordered(row, standard, prefix, False, proofs.threads)) is not None
    ]
    for name, material in materials.items():
        accepted([work for work in works if work.row.candidate.calibration == name], material, proofs)
    works = left(works)
    for work in works:
        work.manifest = None if force else finished(work.order, materials[work.row.candidate.calibration])
        if work.manifest is None:
            check_output(work.order.place, force=force)
    works.sort(key=_shared)
    with states_beside(prefix, materials[None].original, len(works)) as states:
        for position, work in enumerate(works, 1):
            last = position == len(works) or _shared(works[position]) != _shared(work)
            with progress.task(f"{work.row.candidate.name}, {position} of {len(works)}"):
                _make(work, materials[work.row.candidate.calibration], last, states, force, progress)


def _make(
    work: Work, material: Material, last: bool, states: Path | None, force: bool, progress: Progress
) -> None:
    """Build and measure one row; ``last``: of those that may share its quantization."""
    with work.failing():
        _there(work, material, force, progress)
    if last:
        material.discard()
    if work.row.error is None:
        with work.failing():
            _measure(work, material.original, states, progress)


def _shared(work: Work) -> str:
    """Rows with the same may share a quantization, and are made one after the other."""
    return f"{work.order.recipe.model_dump_json()} {work.row.candidate.calibration}"


def _there(work: Work, material: Material, force: bool, progress: Progress) -> None:
    """Build the artefact, unless it is there."""
    if work.manifest is None:
        build_artefact(work, material.prepared, force, progress)
        return
    work.compiling = None if work.manifest.measured is None else work.manifest.measured.compiling
    work.row.result = result(work.order.place, work.manifest, work.compiling)


def _measure(work: Work, original: Model, states: Path | None, progress: Progress) -> None:
    """One artefact at a time beside the original: of large models two fit the memory, not twenty."""
    proof = work.proof
    assert proof is not None
    proof = replace(proof, options=options_for(work.order.target.name, proof.possible(work.order.target)[0]))
    known = measured_again(work.built, proof)
    if known is not None:
        write(known, work.order.place)
        work.row.result = result(work.order.place, known)
        return
    with baseline_of(original, proof.threads, states) as baseline:
        found = measure_together(
            [proof.subject(work.built, work.order.place)],
            baseline,
            source=proof.evaluation,
            metrics=proof.metrics,
            budgets=proof.budgets,
            options=[proof.options],
            progress=progress,
        )
    note(work, proof, found[0])


def _recommendation(
    rows: Sequence[Row], memory: Mapping[str, RunMemory], place: Place, axes: Axes
) -> Recommendation:
    """What to ship, and what the choice of the calibration text has changed."""
    options = [
        option
        for row in rows
        if row.candidate.name in memory
        if (option := option_of(row, memory[row.candidate.name])) is not None
    ]
    found = recommend(options, place, what_to_try(rows, axes))
    sentences = (*found.sentences, *calibration_sentences(rows, found.name, axes.calibrations))
    return replace(found, sentences=sentences)
