"""What a format of checkpoints is: how a quantized layer is stored, and how its values are read back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgeq.calibration.types import Array
from edgeq.compiler.weights.spec import Floats, QuantizedWeight, WeightSpec
from edgeq.targets.base import Runner
from edgeq.targets.language.stored import StoredFolder


@dataclass(frozen=True)
class Part:
    """One tensor of a quantized layer in the file, and how it is made of the weights."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    make: Callable[[QuantizedWeight], Array]


@dataclass(frozen=True)
class Shape:
    """Of a layer's weights; ``floats`` is the type of what the model keeps in float."""

    outputs: int
    inputs: int
    floats: np.dtype[Any]


@dataclass(frozen=True)
class QuantizedLayers:
    """The quantized layers of a model with their [outputs, inputs], and the linear ones that stay float.

    ``dtype``: of floats, ``float16`` or ``bfloat16``.
    """

    specs: Mapping[str, WeightSpec]
    shapes: Mapping[str, tuple[int, int]]
    floats: tuple[str, ...]
    dtype: str


class Format(ABC):
    """``packages``: distributions whose versions are kept. ``proved_by``: what reads the folder back.

    ``rounds_inputs``: engines round the inputs of quantized layers.
    """

    packages: ClassVar[tuple[str, ...]]
    proved_by: ClassVar[str]
    rounds_inputs: ClassVar[bool] = False

    @abstractmethod
    def parts(self, spec: WeightSpec, shape: Shape) -> dict[str, Part]:
        """What is stored of a layer: the tensors' names behind the layer's name, and how they are made."""

    @abstractmethod
    def quantization(self, layers: QuantizedLayers) -> dict[str, Any]:
        """``quantization_config`` of ``config.json``; raises TargetError where layers do not fit together."""

    @abstractmethod
    def read(self, stored: StoredFolder, layer: str, spec: WeightSpec, shape: Shape) -> Floats:
        """float32 [N, K]: the values of a layer in the file; raises ModelError."""

    @abstractmethod
    def open(self, folder: Path, *, threads: int | None = None) -> Runner:
        """The model in ``folder`` as the format's consumer loads it; raises ModelError."""

    def streamed(self, folder: Path, *, threads: int | None = None) -> Runner | None:
        """As :meth:`open`, one matrix in memory at a time; None where the consumer takes all of them."""
        return None

    def final(self, weight: QuantizedWeight) -> QuantizedWeight:
        """The weights as readers of the file have them, where the format rounds scales once more."""
        return weight

    def extra_files(self, quantization: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
        """Files that readers want besides; their names."""
        return ()

    def notes(self, layers: QuantizedLayers) -> tuple[str, ...]:
        """What users should know of the layers that were written."""
        return ()

    def round_inputs(self, x: Any) -> Any:
        """A tensor [batch, tokens, K] as engines round it (:attr:`rounds_inputs`), in float."""
        return x
