"""The target ``coreml``: ONNX to ``.mlpackage``, verified on any machine."""
