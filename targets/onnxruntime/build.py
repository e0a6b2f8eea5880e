"""Writes the artefact of the ONNX Runtime target: ``model.onnx``, with ``model.onnx.data`` if it is large."""

from __future__ import annotations

from pathlib import Path

from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from edgeq.compiler.model import Model, save
from edgeq.errors import TargetError
from edgeq.targets.base import BuildResult
from edgeq.targets.onnxruntime.session import open_session, session_options

MODEL_FILE = "model.onnx"


def build(model: Model, folder: Path) -> BuildResult:
    """Write ``model`` into ``folder`` and load it once with ONNX Runtime.

    The same model gives the same bytes: exporters' stack traces and paths are left out.

    Raises:
        TargetError: the files cannot be written, or ONNX Runtime cannot load them.
    """
    clean = model.clone()
    ClearMetadataAndDocStringPass()(clean.ir)
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
