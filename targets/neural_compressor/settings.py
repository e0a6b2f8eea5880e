"""What a package must be called with, and how it was made: kept in the artefact."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict

from edgeq.calibration.types import TensorSpec
from edgeq.targets.neural_compressor.files import SETTINGS
from edgeq.targets.neural_compressor.options import NeuralCompressorOptions
from edgeq.targets.stored_settings import StoredSettings


class Port(BaseModel):
    """One input or output; a dimension is a number or the name of a dynamic one (None: unknown)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]

    @classmethod
    def of(cls, spec: TensorSpec) -> Port:
        """``spec`` as it is stored."""
        return cls(name=spec.name, dtype=spec.dtype.name, shape=tuple(spec.shape or ()))

    @property
    def spec(self) -> TensorSpec:
        """What a runner tells of it."""
        return TensorSpec(self.name, np.dtype(self.dtype), self.shape)


class Interface(BaseModel):
    """Inputs and outputs in the order of the program, and what its machine code was compiled for.

    ``dimensions``: name of a dynamic dimension → smallest and largest size that the code is right for (None:
    no limit). ``rows``: input → rows of the smallest table that it indexes. ``cpu``: instruction sets that it
    may use (see ``cpu.py``); ``torch``: whose code it links to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    dimensions: dict[str, tuple[int, int | None]]
    rows: dict[str, int] = {}
    cpu: tuple[str, ...]
    torch: str


class Settings(StoredSettings):
    """``version``: of Neural Compressor; ``sampled_from`` says whose the samples are."""

    file = SETTINGS

    version: str
    scheme: str
    sampled_from: str
    options: NeuralCompressorOptions
    interface: Interface
