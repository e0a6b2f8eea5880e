"""Intel Neural Compressor: PyTorch programs quantized for x86 CPUs, compiled ahead of time."""
