"""Names in a Neural Compressor artefact's folder."""

MODEL = "model.pt2"
# How the package was made, and what its inputs and outputs are.
SETTINGS = "neural-compressor.json"
# What PyTorch's compiler made of every node.
NODES = "nodes.json"
# What the quantized program computes before it is compiled, on the samples.
EXPECTED = "expected.npz"
