"""Proves a written package: numbers against the ONNX model it came from, and what the spec really holds."""
