"""Names in an OpenVINO artefact's folder."""

MODEL = "model.xml"
WEIGHTS = "model.bin"
# What the model is compiled with, and how it was made.
SETTINGS = "openvino.json"
