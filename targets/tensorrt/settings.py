"""What decides an engine besides the ONNX model: kept in the artefact, so that it can be built again."""

from __future__ import annotations

from pathlib import Path

from edgeq.targets.stored_settings import StoredSettings
from edgeq.targets.tensorrt.backend.request import BackendName, BuildRequest, InputShapes
from edgeq.targets.tensorrt.files import ENGINE, QDQ_MODEL, SETTINGS
from edgeq.targets.tensorrt.options import TensorRTOptions


class Settings(StoredSettings):
    """``version`` is that of the backend which built the engine, ``sm`` what it was built for."""

    file = SETTINGS

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
