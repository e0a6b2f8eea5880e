"""NNCF as the quantizer: its post-training methods on the normalized ONNX model, under edgeq's proof."""
