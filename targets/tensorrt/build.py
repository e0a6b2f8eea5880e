"""From the quantized ONNX model to an engine, and to the compiler's own word on every node's precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from edgeq.calibration.types import Arrays
from edgeq.compiler.model import Model, save
from edgeq.compiler.plan import Plan
from edgeq.errors import TargetError
from edgeq.targets.base import BuildJob, BuildResult, Check, Finding, NodeResult
from edgeq.targets.checks import refuse_failed
from edgeq.targets.numbers import distance, half_check
from edgeq.targets.onnxruntime.runner import OnnxRuntimeRunner
from edgeq.targets.reference import read_model
from edgeq.targets.tensorrt.architectures import written
from edgeq.targets.tensorrt.backend.build import build_engine
from edgeq.targets.tensorrt.backend.choose import choose
from edgeq.targets.tensorrt.backend.packages import PACKAGES, importable
from edgeq.targets.tensorrt.backend.request import BuildReport
from edgeq.targets.tensorrt.files import ENGINE, QDQ_MODEL, REFERENCE_MODEL
from edgeq.targets.tensorrt.layers.coverage import coverages
from edgeq.targets.tensorrt.layers.file import read_layers, write_layers
from edgeq.targets.tensorrt.layers.nodes import node_results
from edgeq.targets.tensorrt.layers.parse import parse_table
from edgeq.targets.tensorrt.layers.table import LayerTable
from edgeq.targets.tensorrt.lint.run import lint
from edgeq.targets.tensorrt.options import HighPrecision, TensorRTOptions
from edgeq.targets.tensorrt.precision import cast_rest
from edgeq.targets.tensorrt.profiles import make_profiles
from edgeq.targets.tensorrt.settings import Settings

PROVED_BY = "the compiler's layer table; numbers of the quantized model in ONNX Runtime CPU, not the engine's"
_UNCHECKED = (
    "No data was given, so nothing says whether float16 holds the numbers of this model: give calibration or "
    "evaluation data."
)
# Samples whose sizes the optimization profile is derived from, where the user gave none.
PROFILE_SAMPLES = 300
# What a linter's finding of these outcomes would make of the build: no engine, or one that computes nonsense.
_REFUSED = ("fails", "wrong")


def build(job: BuildJob, folder: Path) -> BuildResult:
    """Write the engine, its layer table, and the ONNX model it was built from into ``folder``.

    Raises:
        ConfigError: an option names what the model does not have.
        TargetError: TensorRT cannot express the model, or there is no backend to build with.
    """
    options = cast(TensorRTOptions, job.options)
    backend, sm = choose(options)
    _refuse_passed_through(job.model)
    model, notes = _write_models(job, folder)
    findings = lint(model, options, sm)
    refuse(findings)
    profiles, more = make_profiles(job.model, options.dimensions, _samples(job))
    settings = Settings(
        backend=backend, version="", scheme=job.recipe.scheme, sm=sm, profiles=profiles, options=options
    )
    report = build_engine(settings.request(folder, engine=True), progress=job.progress)
    settings = settings.model_copy(update={"version": report.version})
    tables = tables_of(report)
    results = node_results(tables, model.ir, job.plan)
    covered = coverages(tables, model.ir, job.plan)
    evidence = (
        *(file.name for file in sorted(folder.glob("*.onnx*"))),
        write_layers(folder, report, tables, results, covered),
        settings.write(folder),
    )
    checks = (*_number_checks(job, folder), *(found.check() for found in covered))
    refuse_failed(checks, "TensorRT build", "-O precision=fp32")
    return BuildResult(
        (ENGINE,),
        _load_hints(settings),
        (*notes, *more, *_lint_notes(findings), *_warnings(report)),
        evidence,
        checks,
        PROVED_BY,
    )


def verify(folder: Path, plan: Plan) -> list[NodeResult]:
    """Every planned node's precision by the layer table in ``folder``; raises ModelError."""
    model = read_model(folder / QDQ_MODEL)
    return node_results(read_layers(folder).tables, model.ir, plan)


def check_again(folder: Path) -> list[Check]:
    """Build the engine again, without keeping it, and compare its layer table with the stored one.

    Raises:
        ModelError: the stored evidence is missing or damaged.
        TargetError: the compiler that built the engine is not here, or refuses the model now.
    """
    settings, stored = Settings.read(folder), read_layers(folder)
    if not importable(settings.backend):
        package = PACKAGES[settings.backend]
        raise TargetError(
            f"The engine was built by {package.title} {settings.version}, which is not installed here.",
            fix=package.install,
        )
    report = build_engine(settings.request(folder, engine=False))
    found = {table.sm: table for table in tables_of(report)}
    wanted = "the layers that are stored"
    if report.version != settings.version:
        wanted += f", of version {settings.version}; here is {report.version}"
    return [_same_layers(table, found.get(table.sm), wanted) for table in stored.tables]


def tables_of(report: BuildReport) -> tuple[LayerTable, ...]:
    """The layer tables of a report, by compute capability."""
    # One engine for several GPUs has one table: it is long, and read once.
    layers = {text: parse_table(text, 0).layers for text in set(report.tables.values())}
    return tuple(LayerTable(sm=sm, layers=layers[text]) for sm, text in sorted(report.tables.items()))


def rest_precision(options: TensorRTOptions, scheme: str) -> HighPrecision:
    """The precision of what is not quantized: schemes without quantization are one by themselves."""
    return cast(HighPrecision, scheme) if scheme in ("fp32", "fp16") else options.precision


def _refuse_passed_through(model: Model) -> None:
    # TensorRT would give such an input another name, and nobody could feed it.
    for name in {spec.name for spec in model.inputs} & {spec.name for spec in model.outputs}:
        raise TargetError(
            f"The model's input {name!r} is one of its outputs as well, which TensorRT has not.",
            fix="Leave the output out of the model, or let an Identity make it.",
        )


def _write_models(job: BuildJob, folder: Path) -> tuple[Model, tuple[str, ...]]:
    """Write the model that the engine is built from, and a measurable one where that is another."""
    precision = rest_precision(cast(TensorRTOptions, job.options), job.recipe.scheme)
    clean = job.model.without_metadata()
    model, notes = cast_rest(clean, job.plan, precision, job.samples)
    save(model, folder / QDQ_MODEL)
    if precision == "fp16" and not job.samples:
        notes = (*notes, _UNCHECKED)
    if precision != "bf16":
        return model, notes
    save(clean, folder / REFERENCE_MODEL)
    measured = (
        "ONNX Runtime CPU has few BF16 kernels: accuracy is that of the quantized model with a float32 rest."
    )
    return model, (*notes, measured)


def _samples(job: BuildJob) -> Iterator[Arrays]:
    if job.data is None:
        return
    for batch in job.data.batches(1, PROFILE_SAMPLES):
        yield batch.inputs


def refuse(findings: Sequence[Finding]) -> None:
    """Raise when a build would fail, or compute something else than the model.

    Raises:
        TargetError: naming the first node and its mend.
    """
    found = [finding for finding in findings if finding.outcome in _REFUSED]
    if not found:
        return
    first = found[0]
    more = f" (and {len(found) - 1} more: edgeq lint)" if len(found) > 1 else ""
    raise TargetError(
        f"TensorRT cannot take {first.op_type} {first.node!r}: {first.what}{more}.", fix=first.mend
    )


def _lint_notes(findings: Sequence[Finding]) -> Iterator[str]:
    for finding in findings:
        if finding.rule != "dynamic-shape":  # here every dynamic dimension gets a profile
            yield f"{finding.op_type} {finding.node!r}: {finding.what}. {finding.mend}"


def _warnings(report: BuildReport) -> Iterator[str]:
    for text in dict.fromkeys(message.text for message in report.messages):
        yield f"TensorRT says: {text}"


def _load_hints(settings: Settings) -> dict[str, Any]:
    return {
        "model": ENGINE,
        "backend": f"{settings.backend} {settings.version}",
        "compute_capabilities": ", ".join(written(sm) for sm in settings.sm) or "this GPU's",
        "rest": rest_precision(settings.options, settings.scheme),
    }


def _number_checks(job: BuildJob, folder: Path) -> tuple[Check, ...]:
    """What casting the rest has cost, on the samples; nothing without samples or without a cast."""
    precision = rest_precision(cast(TensorRTOptions, job.options), job.recipe.scheme)
    if not job.samples or precision != "fp16":
        return ()
    reference = folder / REFERENCE_MODEL
    save(job.model, reference)
    try:
        wanted, got = _run(reference, job), _run(folder / QDQ_MODEL, job)
    finally:
        for file in folder.glob(f"{REFERENCE_MODEL}*"):
            file.unlink()
    found = distance(wanted, got, floats_only=True)
    return (half_check(found, job.sampled_from, rounded=bool(job.plan.activations)),)


def _run(path: Path, job: BuildJob) -> list[Arrays]:
    # Sums are split by the number of threads, which would change their last bits.
    with OnnxRuntimeRunner(path, threads=1, in_float=True) as runner:
        return [runner.run(sample) for sample in job.samples]


def _same_layers(stored: LayerTable, found: LayerTable | None, wanted: str) -> Check:
    name = f"layers of SM {stored.sm}"
    if found is None:
        return Check(name, False, "the compiler prints no layers", wanted)
    same = [a == b for a, b in zip(stored.layers, found.layers, strict=False)]
    if len(stored.layers) != len(found.layers):
        return Check(name, False, f"{len(found.layers)} layers, stored are {len(stored.layers)}", wanted)
    if not all(same):
        first = stored.layers[same.index(False)].name
        return Check(name, False, f"the layer {first!r} is another", wanted)
    return Check(name, True, f"{len(same)} layers, the same as stored", wanted)
