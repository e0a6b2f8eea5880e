"""Names in a GGUF artefact's folder."""

MODEL = "model.gguf"
# How the file was made, for verification.
SETTINGS = "gguf.json"
# What the reference is built from: Hugging Face's names.
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
