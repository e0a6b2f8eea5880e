"""Names in the folder of a language model's artefact."""

# Those of Hugging Face's own folders.
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# What edgeq keeps of how the weights were made, and what its dequantized weights compute on the samples.
SETTINGS = "edgeq-weights.json"
EXPECTED = "expected.npz"
