"""Names of the files in an artefact of this target."""

MODEL_FILE = "model.onnx"
