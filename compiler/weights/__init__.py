"""Weight-only quantization of language models: one method a file, layer by layer, from files."""
