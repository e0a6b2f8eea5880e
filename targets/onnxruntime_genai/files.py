"""Names of the files in an artefact of this target."""

MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
CONFIG_FILE = "genai_config.json"
# Evidence: token ids, what the reference computes of them, and how both were made.
EXPECTED = "expected.npz"
