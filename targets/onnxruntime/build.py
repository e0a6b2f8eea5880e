"""Writes the artefact of the ONNX Runtime target: ``model.onnx``, with ``model.onnx.data`` if it is large."""

from __future__ import annotations

from pathlib import Path

from edgeq.compiler.model import Model, save
from edgeq.errors import DataError, TargetError
from edgeq.targets.base import BuildJob, BuildResult
from edgeq.targets.checks import refuse_failed
from edgeq.targets.onnxruntime.files import MODEL_FILE
from edgeq.targets.onnxruntime.fusions import fuse_kernels
from edgeq.targets.onnxruntime.options import OnnxRuntimeOptions
from edgeq.targets.onnxruntime.prove import Expected, expect, prove, save_evidence
from edgeq.targets.onnxruntime.versions import oldest_version

PROVED_BY = "ONNX Runtime"


def build(job: BuildJob, folder: Path) -> BuildResult:
    """Write the quantized model into ``folder``, with ONNX Runtime's own operators, and load it once.

    Fused kernels stay where the model can be run before and after, and computes the same.

    The same model gives the same bytes: exporters' stack traces and paths are left out. So are the shapes of
    intermediate tensors, which ONNX Runtime infers itself: in small models they are a tenth of the file.

    Raises:
        TargetError: the files cannot be written, ONNX Runtime cannot load them, or computes something else.
    """
    plain = job.model.without_metadata()
    options = job.options or OnnxRuntimeOptions()
    fused = fuse_kernels(plain) if options.fusions else plain
    expected, note = (None, "") if fused is plain else _expected(plain, job, folder)
    model = plain if expected is None else fused
    files = _write(model, folder)
    evidence = () if expected is None else save_evidence(expected, job.recipe, folder)
    checks = tuple(prove(folder, job.threads))
    refuse_failed(checks, "model with fused kernels", "", fix="Compile without them (-O fusions=off).")
    hints = {
        "model": MODEL_FILE,
        "provider": "CPUExecutionProvider",
        "onnxruntime": f">={oldest_version(model)}",
    }
    return BuildResult(files, hints, (note,) if note else (), evidence, checks if evidence else (), PROVED_BY)


def _expected(model: Model, job: BuildJob, folder: Path) -> tuple[Expected | None, str]:
    """What ``model`` computes, else None and why nobody knows."""
    try:
        with job.progress.task("Running the model before fusions"):
            return expect(model, job, folder), ""
    except (DataError, TargetError) as error:
        return None, f"No kernels were fused, as their numbers could not be compared: {error.what}"


def _write(model: Model, folder: Path) -> tuple[str, ...]:
    _forget_intermediate_shapes(model)
    try:
        return tuple(sorted(path.name for path in save(model, folder / MODEL_FILE)))
    except OSError as error:
        raise TargetError(
            f"The model cannot be written to {folder}: {error.strerror or error}.",
            fix="Free space there, or choose another output folder.",
        ) from error


def _forget_intermediate_shapes(model: Model) -> None:
    for node in model.ir.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
                value.type = None
    for value in model.ir.graph.initializers.values():
        if value not in model.ir.graph.outputs:
            value.shape = None
            value.type = None
