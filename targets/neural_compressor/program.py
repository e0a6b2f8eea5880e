"""The PyTorch program that a model was exported from."""

from __future__ import annotations

from edgeq.compiler.model import Model
from edgeq.errors import TargetError


def refuse_onnx(model: Model) -> None:
    """Refuse a model that has no PyTorch program.

    Raises:
        TargetError: naming the target that takes ONNX models.
    """
    if model.program is not None or model.source.kind == "hf":
        return
    raise TargetError(
        f"Target 'neural-compressor' takes PyTorch models, and {model.source.location} is an ONNX model.",
        fix="Give a torch module (module:factory), a .pt2 or a Hugging Face folder, or take --target openvino.",
    )
