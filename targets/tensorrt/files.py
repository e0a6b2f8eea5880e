"""Names of the files of an artefact."""

from __future__ import annotations

from pathlib import Path

ENGINE = "model.engine"
# The quantized ONNX model that the engine was built from.
QDQ_MODEL = "model.onnx"
# The same with a float32 rest, where ONNX Runtime has no kernels for the rest's precision.
REFERENCE_MODEL = "reference.onnx"
LAYERS = "layers.json"
SETTINGS = "settings.json"


def measured_model(folder: Path) -> Path:
    """The ONNX model that accuracy is measured on where no GPU runs the engine."""
    reference = folder / REFERENCE_MODEL
    return reference if reference.is_file() else folder / QDQ_MODEL
