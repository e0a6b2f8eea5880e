"""Names of the files in an artefact of this target."""

MODEL_FILE = "model.onnx"
# Evidence of a model with fused kernels: what it computed before, and what that was computed with.
EXPECTED = "expected.npz"
SETTINGS = "onnxruntime.json"
