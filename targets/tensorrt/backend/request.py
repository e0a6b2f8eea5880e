"""What a backend is asked to build, and what it answers: values that cross the process border as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

BackendName = Literal["tensorrt", "tensorrt-rtx"]
Shape = tuple[int, ...]


class InputShapes(BaseModel):
    """Smallest, preferred and largest shape of one input within an optimization profile."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: Shape
    opt: Shape
    max: Shape


class BuildRequest(BaseModel):
    """One engine to build.

    ``sm``: compute capabilities times ten (86 = Ampere GA10x); empty builds for the GPU of this machine.
    ``engine`` None builds only for the layer table. ``profiles``: input name → shapes, one dict per profile.
    ``timing_cache`` is read and written by the backend ``tensorrt`` alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: BackendName
    model: Path
    engine: Path | None
    sm: tuple[int, ...]
    profiles: tuple[dict[str, InputShapes], ...] = ()
    weight_streaming: bool = False
    optimization_level: int | None = None
    workspace_mb: int | None = None
    timing_cache: Path | None = None


class Message(BaseModel):
    """A warning or an error of the parser or the builder, with the ONNX node that it is about when known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    severity: Literal["error", "warning"]
    text: str
    node: str = ""
    op_type: str = ""


class BuildReport(BaseModel):
    """What came of a request.

    ``tables``: SM → the compiler's own layer table as it was printed (key 0: the GPU of this machine).
    ``seconds`` of building, ``peak_mb`` resident memory of the build process.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: BackendName
    version: str
    engine_bytes: int
    seconds: float
    peak_mb: float
    tables: dict[int, str]
    messages: tuple[Message, ...] = ()
