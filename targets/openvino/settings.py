"""What decides an artefact besides its ONNX model: kept in it, so that it can be loaded and built again."""

from __future__ import annotations

from edgeq.targets.openvino.files import SETTINGS
from edgeq.targets.openvino.options import OpenVINOOptions
from edgeq.targets.stored_settings import StoredSettings


class Settings(StoredSettings):
    """``version``: of the OpenVINO that wrote the model; ``sampled_from`` says whose the samples are."""

    file = SETTINGS

    version: str
    scheme: str
    sampled_from: str
    options: OpenVINOOptions
