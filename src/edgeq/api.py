"""The Python API: compile a model for a target and prove it, or measure an artefact again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from edgeq.artefact import artefact_folder, check_writable
from edgeq.benchmarks.budgets import Budget, parse_budget
from edgeq.benchmarks.options import BenchOptions
from edgeq.building import Material, Order, SourceSpec, build, check_start, make_order
from edgeq.calibration.data import DataOptions
from edgeq.calibration.preprocess import Preprocessing
from edgeq.calibration.types import TensorSpec
from edgeq.compiler.recipe import SCHEMES, Recipe, Scheme
from edgeq.errors import UsageError
from edgeq.manifest import Manifest, verify_files
from edgeq.progress import Progress, SilentProgress
from edgeq.proof import Proof, find_baseline, result, write
from edgeq.recipes import check_read
from edgeq.result import CompileResult
from edgeq.sources import DataOpener
from edgeq.targets.base import Target
from edgeq.targets.checks import require_ready
from edgeq.targets.registry import get_target

# How thoroughly an artefact is measured when nobody says.
DEFAULT_BENCH = BenchOptions()


def compile(
    model: Any,
    *,
    target: str = "onnxruntime",
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
) -> CompileResult:
    """Compile ``model`` for ``target`` and measure the artefact against its FP32 original.

    Args:
        model: an ONNX path, a torch module, ``module:factory``, a ``.pt2`` path or a Hugging Face folder.
        target: name of a target, see :func:`edgeq.targets.registry.target_names`.
        scheme: one of :data:`edgeq.compiler.recipe.SCHEMES`; or give a whole ``recipe``.
        recipe: scheme, range method and overrides as one value.
        target_options: the target's own options, such as ``{"deployment_target": "iOS18"}`` for ``coreml``.
        calibration: data for static schemes: a path, ``module:callable``, arrays by input name, …
        evaluation: labelled (or unlabelled) data for the accuracy metrics, in any of the same forms.
        preprocessing: of images and arrays; a preset's name or ``field=value`` words.
        data_options: how to read the data where its form does not tell.
        budgets: such as ``"size <= 100MB"``, ``"top1 >= 99%"``.
        metrics: what to measure on the evaluation data; by default what task and budgets ask for.
        output: prefix of the artefact folder ``<output>-<target>``; by default ``build/<model's name>``.
        force: replace an artefact that is already there.
        strict: refuse an artefact in which a node that was asked to be quantized runs in float.
        threads: of the runtime; by default every core that this process may use.
        bench: how long to measure; None measures nothing (budgets are then refused).
        example_inputs: for a torch module: the inputs of one forward.
        task: for a Hugging Face folder, where its configuration does not tell.
        progress: receives progress and notes.

    Returns:
        The artefact's folder, manifest, measurements and verdicts. A missed budget is a verdict, no error.

    Raises:
        UsageError: an unknown target, scheme, metric or budget; an output that exists.
        ModelError: the model cannot be read or would change its results.
        DataError: data that is missing or cannot be used.
        TargetError: the target cannot do it.
    """
    progress = progress or SilentProgress()
    gate = parsed_budgets(budgets, bench)
    place = artefact_path(model, target, output)
    order = make_order(
        target, chosen_recipe(scheme, recipe), target_options or {}, place, strict=strict, threads=threads
    )
    check_start(order, calibration, force=force)

    spec = SourceSpec(
        model, calibration, evaluation, preprocessing, data_options, example_inputs, task, order.checkpoint
    )
    material = Material(spec, progress)
    found = compile_order(order, material, metrics, gate, bench, force=force, progress=progress)
    material.discard()
    return found


def compile_order(
    order: Order,
    material: Material,
    metrics: Sequence[str],
    budgets: Sequence[Budget],
    bench: BenchOptions | None,
    *,
    force: bool,
    progress: Progress,
) -> CompileResult:
    """Build and measure one artefact; ``material`` may serve others too. Raises as :func:`compile`."""
    original = material.original
    order.target.check_model(original, order.options)
    data, proof = material.data, None
    if bench is not None:
        proof = Proof(data.evaluation, tuple(metrics) or None, tuple(budgets), order.threads, bench)
        proof.check(original.outputs, order.target)

    with artefact_folder(order.place, force=force) as folder:
        manifest, compiling = build(order, material.prepared, folder, progress)
        if proof is not None:
            manifest = proof.measured(manifest, folder, original, progress, compiling=compiling)
        write(manifest, folder)
    return result(order.place, manifest, compiling)


def bench(
    folder: Path | str,
    *,
    baseline: Any = None,
    evaluation: Any = None,
    preprocessing: Preprocessing | str | None = None,
    data_options: DataOptions | None = None,
    budgets: Sequence[str | Budget] = (),
    metrics: Sequence[str] = (),
    threads: int | None = None,
    options: BenchOptions | None = None,
    progress: Progress | None = None,
) -> CompileResult:
    """Measure an artefact again: latency, memory, size, and accuracy when data is given.

    The FP32 baseline is the model that the artefact was compiled from, found where the manifest says and
    checked by its SHA-256, or ``baseline``. Without one, only the artefact is measured, which the notes say.
    The artefact's manifest and report get the new numbers.

    Raises:
        EdgeqError: as :func:`compile`; ModelError when the artefact's files are not the ones it was made of.
    """
    progress = progress or SilentProgress()
    options = options or DEFAULT_BENCH
    place = Path(folder)
    manifest = Manifest.read(place)
    verify_files(manifest, place)
    check_writable(place)
    gate = parsed_budgets(budgets, options)
    chosen = get_target(manifest.target)
    require_ready(chosen)
    original, note = find_baseline(manifest.source, baseline, progress)
    inputs, outputs = _signature(chosen, place, threads)
    data = DataOpener(inputs, manifest.source, preprocessing, data_options, artefact=place)
    proof = Proof(data.open(evaluation), tuple(metrics) or None, gate, threads, options)
    proof.check(outputs, chosen)
    cost = None if manifest.measured is None else manifest.measured.compiling
    notes = [note] if note else []
    manifest = proof.measured(manifest, place, original, progress, *notes, compiling=cost)
    write(manifest, place)
    return result(place, manifest)


def artefact_path(model: Any, target: str, output: Path | str | None) -> Path:
    """The artefact folder ``<output>-<target>``, by default ``build/<model's name>-<target>``."""
    prefix = output_prefix(model, output)
    return prefix.with_name(f"{prefix.name}-{target}")


def output_prefix(model: Any, output: Path | str | None) -> Path:
    """What the paths of a model's artefacts begin with: ``output``, by default ``build/<model's name>``.

    Raises:
        UsageError: it has no name.
    """
    if output is None:
        output = Path("build") / _stem(model)
    output = Path(output)
    if not output.name:
        raise UsageError(f"The output {str(output)!r} has no name.", fix="Give it one, as in build/model.")
    return output


def _stem(model: Any) -> str:
    if not isinstance(model, (str, Path)):
        return type(model).__name__.lower()
    text = str(model)
    if ":" in text and not Path(text).exists():
        return text.rsplit(":", 1)[0].rsplit(".", 1)[-1] + "-" + text.rsplit(":", 1)[1]
    path = Path(text)
    return path.resolve().name if path.is_dir() else path.stem


def chosen_recipe(scheme: str | None, recipe: Recipe | None) -> Recipe:
    """``recipe``, or the one that ``scheme`` stands for.

    Raises:
        UsageError: neither is given, there is no such scheme, or they contradict each other.
    """
    if recipe is None and scheme is None:
        raise UsageError("No scheme was given.", fix=f"Choose one of: {', '.join(SCHEMES)}.")
    if scheme is not None and scheme not in SCHEMES:
        raise UsageError(f"Unknown scheme {scheme!r}.", fix=f"Known schemes: {', '.join(SCHEMES)}.")
    if recipe is None:
        return Recipe(scheme=cast(Scheme, scheme))
    check_read(recipe)
    if scheme is not None and scheme != recipe.scheme:
        raise UsageError(
            f"Scheme {scheme!r} and a recipe of scheme {recipe.scheme!r} were both given.", fix="Give one."
        )
    return recipe


def parsed_budgets(budgets: Sequence[str | Budget], options: BenchOptions | None) -> tuple[Budget, ...]:
    """``budgets``, those that are texts parsed.

    Raises:
        ConfigError: one cannot be read.
        UsageError: there are some, and nothing is measured.
    """
    parsed = tuple(parse_budget(b) if isinstance(b, str) else b for b in budgets)
    if parsed and options is None:
        raise UsageError(
            "Budgets were given and measuring is switched off.", fix="Drop the budgets, or measure."
        )
    return parsed


def _signature(
    target: Target, folder: Path, threads: int | None
) -> tuple[list[TensorSpec], list[TensorSpec]]:
    runner = target.runner(folder, threads=threads)
    try:
        return runner.inputs, runner.outputs
    finally:
        runner.close()
