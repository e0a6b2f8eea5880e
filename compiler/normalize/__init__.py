"""Bring any ONNX model to one canonical form without changing what it computes."""

from edgeq.compiler.normalize.normalizer import Normalized, normalize

__all__ = ["Normalized", "normalize"]
