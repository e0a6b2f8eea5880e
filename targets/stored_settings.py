"""What decides an artefact besides its ONNX model: kept in it as JSON, so that it can be made again."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from edgeq.errors import ModelError


class StoredSettings(BaseModel):
    """The base of a target's settings; ``file`` is where they stand in the artefact's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: ClassVar[str]

    def write(self, folder: Path) -> str:
        """Write them into the artefact's folder; returns the file's name."""
        text = self.model_dump_json(indent=2) + "\n"
        (folder / self.file).write_text(text, encoding="utf-8", newline="\n")
        return self.file

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The settings of the artefact in ``folder``.

        Raises:
            ModelError: they are missing or damaged.
        """
        path = folder / cls.file
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValidationError) as error:
            raise ModelError(
                f"{path} cannot be read ({type(error).__name__}).", fix="Compile the model again."
            ) from error
