"""Names of the files of an artefact."""

ENGINE = "model.engine"
# The quantized ONNX model that the engine was built from: what accuracy is measured on without a GPU.
QDQ_MODEL = "model.onnx"
LAYERS = "layers.json"
SETTINGS = "settings.json"
