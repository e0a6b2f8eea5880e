"""Writes the artefact of the ONNX Runtime target: ``model.onnx``, with ``model.onnx.data`` if it is large."""

from __future__ import annotations

from pathlib import Path

from edgeq.compiler.model import Model, save
from edgeq.errors import TargetError
from edgeq.targets.base import BuildResult
from edgeq.targets.onnxruntime.files import MODEL_FILE
from edgeq.targets.onnxruntime.fusions import fuse_kernels
from edgeq.targets.onnxruntime.session import open_session, session_options


def build(model: Model, folder: Path) -> BuildResult:
    """Write ``model`` into ``folder``, with ONNX Runtime's own operators, and load it once.

    The same model gives the same bytes: exporters' stack traces and paths are left out. So are the shapes of
    intermediate tensors, which ONNX Runtime infers itself: in small models they are a tenth of the file.

    Raises:
        TargetError: the files cannot be written, or ONNX Runtime cannot load them.
    """
    clean = fuse_kernels(model.without_metadata())
    _forget_intermediate_shapes(clean)
    try:
        files = save(clean, folder / MODEL_FILE)
    except OSError as error:
        raise TargetError(
            f"The model cannot be written to {folder}: {error.strerror or error}.",
            fix="Free space there, or choose another output folder.",
        ) from error
    open_session(folder / MODEL_FILE, session_options(1))
    hints = {"model": MODEL_FILE, "provider": "CPUExecutionProvider"}
    return BuildResult(tuple(sorted(path.name for path in files)), hints)


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
