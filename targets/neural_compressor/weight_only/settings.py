"""How an artefact with INT4 weights was made, and what its inputs and outputs are: kept in it."""

from __future__ import annotations

from edgeq.targets.neural_compressor.files import SETTINGS
from edgeq.targets.neural_compressor.options import NeuralCompressorOptions
from edgeq.targets.neural_compressor.settings import Port
from edgeq.targets.stored_settings import StoredSettings


class WeightSettings(StoredSettings):
    """``version``: of Neural Compressor; ``architecture``: the class of transformers that runs the model."""

    file = SETTINGS

    version: str
    scheme: str
    sampled_from: str
    options: NeuralCompressorOptions
    architecture: str
    block_size: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
