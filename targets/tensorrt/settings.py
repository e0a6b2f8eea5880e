"""What decides an engine besides the ONNX model: kept in the artefact, so that it can be built again."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from edgeq.errors import ModelError
from edgeq.targets.tensorrt.backend.request import BackendName, BuildRequest, InputShapes
from edgeq.targets.tensorrt.files import ENGINE, QDQ_MODEL, SETTINGS
from edgeq.targets.tensorrt.options import TensorRTOptions


class Settings(BaseModel):
    """``version`` is that of the backend which built the engine, ``sm`` what it was built for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: BackendName
    version: str
    scheme: str
    sm: tuple[int, ...]
    profiles: tuple[dict[str, InputShapes], ...]
    options: TensorRTOptions

    def request(self, folder: Path, *, engine: bool) -> BuildRequest:
        """What builds the engine from the ONNX model in ``folder``; without ``engine`` for the table only."""
        return BuildRequest(
            backend=self.backend,
            model=folder / QDQ_MODEL,
            engine=folder / ENGINE if engine else None,
            sm=self.sm,
            profiles=self.profiles,
            weight_streaming=self.options.weight_streaming,
            optimization_level=self.options.optimization_level,
            workspace_mb=self.options.workspace_mb,
            timing_cache=self.options.timing_cache,
        )

    def write(self, folder: Path) -> str:
        """Write them into the artefact's folder; returns the file's name."""
        (folder / SETTINGS).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8", newline="\n")
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
