"""Handlers: one function per ONNX op, in files by family."""
