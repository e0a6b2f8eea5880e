"""Names in the folder of an artefact with INT4 weights."""

# Those of Hugging Face's own folders.
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
# The quantization's settings again, where older readers look for them.
QUANTIZE_CONFIG = "quantize_config.json"
# What a quantized layer is stored as.
QWEIGHT, QZEROS, SCALES, G_IDX = "qweight", "qzeros", "scales", "g_idx"
