"""From the quantized ONNX model to an IR that was run against it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from edgeq.calibration.random_inputs import random_samples
from edgeq.calibration.types import Arrays, TensorSpec
from edgeq.errors import TargetError
from edgeq.targets.base import BuildJob, BuildResult, Check
from edgeq.targets.checks import refuse_failed
from edgeq.targets.dimensions import dynamic_axes, refuse_unknown
from edgeq.targets.openvino.convert import prepare, write_ir
from edgeq.targets.openvino.files import MODEL, WEIGHTS
from edgeq.targets.openvino.options import OpenVINOOptions
from edgeq.targets.openvino.prove import prove
from edgeq.targets.openvino.session import properties, refuse_missing
from edgeq.targets.openvino.settings import Settings
from edgeq.targets.reference import REFERENCE, save_evidence

PROVED_BY = "the OpenVINO runtime"
_THROUGHPUT = (
    "mode=throughput serves several requests beside each other; latencies here are of one at a time."
)


def build(job: BuildJob, folder: Path) -> BuildResult:
    """Write the IR, the ONNX model that it was made of and the samples into ``folder``, and run both.

    Raises:
        ConfigError: an option names what the model does not have.
        TargetError: OpenVINO cannot express the model, or the IR does not compute what it should.
    """
    import openvino

    options = cast(OpenVINOOptions, job.options)
    refuse_missing(options.precision)
    inputs = job.model.inputs
    refuse_unknown(job.model, options.dimensions)
    reference, notes = prepare(job.model, job.plan, options.rest_of(job.recipe.scheme))
    samples, sampled_from = _samples(job, inputs, options)
    evidence = save_evidence(reference, samples, folder)
    with job.progress.task("Converting to OpenVINO"):
        files = write_ir(folder / REFERENCE, inputs, options.dimensions, folder)
    settings = Settings(
        version=openvino.get_version(),
        scheme=job.recipe.scheme,
        sampled_from=sampled_from,
        options=options,
    )
    evidence = (*evidence, settings.write(folder))
    with job.progress.task("Verifying the model"):
        checks = _prove(folder, job)
    refuse_failed(checks, "OpenVINO model", "-O precision=f32")
    if options.mode == "throughput":
        notes = (*notes, _THROUGHPUT)
    return BuildResult(files, _load_hints(settings, job.threads), notes, evidence, checks, PROVED_BY)


def _prove(folder: Path, job: BuildJob) -> tuple[Check, ...]:
    try:
        return tuple(prove(folder, job.threads))
    except TargetError as error:
        if job.samples:
            raise
        fix = "Random inputs may have sizes that it cannot take: give data, or sizes (-O dimension.NAME=64)."
        raise TargetError(error.what, fix=fix) from error


def _load_hints(settings: Settings, threads: int | None) -> dict[str, Any]:
    config = properties(settings.options, threads)
    return {
        "model": MODEL,
        "weights": WEIGHTS,
        "device": "CPU",
        **{k: v for k, v in config.items() if v != ""},
    }


def _samples(
    job: BuildJob, inputs: Sequence[TensorSpec], options: OpenVINOOptions
) -> tuple[tuple[Arrays, ...], str]:
    """The job's samples where the model takes their sizes, else random ones, and where they are from."""
    fitting = tuple(sample for sample in job.samples if _fits(sample, inputs, options))
    if fitting:
        return fitting, job.sampled_from
    sizes = {name: size.initial for name, size in options.dimensions.items()}
    return random_samples(_sized(inputs, sizes))


def _fits(sample: Arrays, inputs: Sequence[TensorSpec], options: OpenVINOOptions) -> bool:
    for spec in inputs:
        for axis, name in dynamic_axes(spec):
            size = options.dimensions.get(name)
            if size is not None and not size.smallest <= sample[spec.name].shape[axis] <= size.largest:
                return False
    return True


def _sized(inputs: Sequence[TensorSpec], sizes: dict[str, int]) -> list[TensorSpec]:
    found = []
    for spec in inputs:
        named = dict(dynamic_axes(spec))
        shape = None
        if spec.shape is not None:
            shape = tuple(sizes.get(named.get(axis, ""), size) for axis, size in enumerate(spec.shape))
        found.append(TensorSpec(spec.name, spec.dtype, shape))
    return found
