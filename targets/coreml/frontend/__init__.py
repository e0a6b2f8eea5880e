"""ONNX to MIL: strict, one handler per op."""
