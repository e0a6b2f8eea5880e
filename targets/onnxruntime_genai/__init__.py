"""The target ``onnxruntime-genai``: ONNX Runtime GenAI (decoder with KV cache)."""
