"""Load a model from an ONNX file, PyTorch or a Hugging Face folder: everything becomes one ONNX graph."""

from __future__ import annotations

from edgeq.compiler.load.source import load, open_checkpoint

__all__ = ["load", "open_checkpoint"]
