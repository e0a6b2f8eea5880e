"""Names in a Core ML artefact's folder."""

PACKAGE = "model.mlpackage"
# The ONNX model that the package was made of, inputs to compare both on, and how it was made.
REFERENCE = "reference.onnx"
SAMPLES = "samples.npz"
SETTINGS = "package.json"
