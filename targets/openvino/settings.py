"""What decides an artefact besides its ONNX model: kept in it, so that it can be loaded and built again."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from edgeq.errors import ModelError
from edgeq.targets.openvino.files import SETTINGS
from edgeq.targets.openvino.options import OpenVINOOptions


class Settings(BaseModel):
    """``version``: of the OpenVINO that wrote the model; ``sampled_from`` says whose the samples are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    scheme: str
    sampled_from: str
    options: OpenVINOOptions

    def write(self, folder: Path) -> str:
        """Write them into the artefact's folder; returns the file's name."""
        text = self.model_dump_json(indent=2) + "\n"
        (folder / SETTINGS).write_text(text, encoding="utf-8", newline="\n")
        return SETTINGS

    @classmethod
    def read(cls, folder: Path) -> Settings:
        """The settings of the artefact in ``folder``.

        Raises:
            ModelError: they are missing or damaged.
        """
        path = folder / SETTINGS
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValidationError) as error:
            raise ModelError(f"{path} cannot be read: {error}.", fix="Compile the model again.") from error
