"""What the numbers of a model with fused kernels are compared with: kept in its artefact."""

from __future__ import annotations

from edgeq.targets.onnxruntime.files import SETTINGS
from edgeq.targets.stored_settings import StoredSettings


class Settings(StoredSettings):
    """``version``: of the ONNX Runtime that made the expected results; ``sampled_from``: whose inputs.

    ``rounded``: activations are rounded to integers. ``half``: the arithmetic may be float16.
    """

    file = SETTINGS

    version: str
    sampled_from: str
    rounded: bool
    half: bool
