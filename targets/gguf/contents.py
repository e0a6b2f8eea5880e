"""What the tensors of a GGUF file hold: edgeq's codes, floats, or blocks that the gguf package rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgeq.calibration.types import Array
from edgeq.compiler.load.checkpoint import Checkpoint
from edgeq.compiler.weights.spec import Floats, QuantizedWeight, WeightSpec
from edgeq.targets.gguf.blocks import BLOCK, pack, type_of
from edgeq.targets.gguf.tensors import TensorPlace
from edgeq.targets.gguf.types import FileType
from edgeq.targets.gguf.write import Content

_LARGEST_HALF = 65504.0


class Weights(Protocol):
    """Where weights come from: a store, or a checkpoint as it is."""

    def spec(self, layer: str) -> WeightSpec | None: ...

    def quantized(self, layer: str) -> QuantizedWeight: ...

    def tensor(self, name: str) -> Array: ...


@dataclass(frozen=True)
class FloatWeights:
    """The weights of ``checkpoint``, none of which is quantized."""

    checkpoint: Checkpoint

    def spec(self, layer: str) -> WeightSpec | None:
        return None

    def quantized(self, layer: str) -> QuantizedWeight:
        raise KeyError(layer)

    def tensor(self, name: str) -> Array:
        return self.checkpoint.read(name)


def content_of(
    place: TensorPlace, weights: Weights, file_type: FileType, others: Mapping[str, str]
) -> Content:
    """How ``place`` is written in a file of ``file_type``; ``others``: layer → another type."""
    spec = weights.spec(place.layer)
    if spec is not None and place.source != place.layer:
        kind = type_of(spec.bits, spec.symmetric)
        return Content(place.name, place.shape, kind, lambda: _codes(place, weights, kind))
    kind = _float_type(place, weights, file_type, others)
    return Content(place.name, place.shape, kind, lambda: encode(_floats(place, weights), kind))


def encode(values: Floats, kind: str) -> Array:
    """float32 ``values`` as the bytes of ``kind``."""
    import gguf
    from gguf.quants import quantize

    if kind == "BF16":
        # The package's kernel reads the bits of whole rows.
        values = np.ascontiguousarray(values)
    with np.errstate(all="ignore"):
        return np.asarray(quantize(values, gguf.GGMLQuantizationType[kind]))


def _codes(place: TensorPlace, weights: Weights, kind: str) -> Array:
    return pack(place.codes_to_file(weights.quantized(place.layer)), kind)


def _floats(place: TensorPlace, weights: Weights) -> Floats:
    return np.asarray(place.to_file(weights.tensor(place.source).astype(np.float32)), np.float32)


def _float_type(place: TensorPlace, weights: Weights, file_type: FileType, others: Mapping[str, str]) -> str:
    # llama.cpp reads norms and biases in float32 only.
    if len(place.shape) == 1:
        return "F32"
    kind = file_type.tensor if file_type.maker == "float" else "F16"
    if file_type.maker == "package" and place.shape[-1] % BLOCK == 0:
        kind = file_type.tensor
    kind = others.get(place.layer, kind)
    return "F32" if kind == "F16" and _overflows(weights.tensor(place.source)) else kind


def _overflows(values: Array) -> bool:
    """Whether float16 would hold infinities; its own values cannot."""
    if values.dtype == np.float16:
        return False
    return bool(max(abs(float(values.max())), abs(float(values.min()))) > _LARGEST_HALF)
