"""Load a ``.pt2`` file of ``torch.export.save``."""

from __future__ import annotations

from pathlib import Path

from edgeq.compiler.load.pt2_archive import checked, weights_only
from edgeq.compiler.load.torch_export import to_model, to_onnx
from edgeq.compiler.model import Model
from edgeq.errors import MissingExtraError, ModelError
from edgeq.progress import Progress
from edgeq.quiet import quiet, reason


def load_exported_program(path: Path, progress: Progress) -> Model:
    """Load and convert an exported program. Its dynamic and fixed dimensions are kept as they were exported.

    Raises:
        ModelError: not there, not an exported program, holds pickled objects or compiled code, or cannot be
            converted.
        MissingExtraError: PyTorch is not installed.
    """
    try:
        import onnxscript  # noqa: F401 - torch.onnx needs it
        import torch
    except ImportError as error:
        raise MissingExtraError("Loading a .pt2 exported program", "torch") from error
    checked(path)
    with progress.task(f"Exporting {path.name}"):
        try:
            with quiet(), weights_only():
                program = torch.export.load(path)
        except Exception as error:
            raise ModelError(
                f"{path} cannot be loaded as an exported program: {reason(error)}.",
                fix="Write it with torch.export.save of this PyTorch version.",
            ) from error
        try:
            graph = to_onnx(program)
        except Exception as error:
            raise ModelError(f"{path} cannot be converted to ONNX: {reason(error)}.") from error
    return to_model(graph, program, str(path), progress)
