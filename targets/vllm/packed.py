"""compressed-tensors' ``pack-quantized``: integer weights of 4 or 8 bits, activations in float.

Of a layer with K inputs, N outputs and G groups: ``weight_packed`` int32 [N, K * bits / 32], codes packed
along the inputs; ``weight_scale`` [N, G]; ``weight_zero_point`` int32 [N * bits / 32, G], packed along the
outputs, of asymmetric weights; ``weight_shape`` int64 [2]. Codes are stored with an offset of 2^(bits-1).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgeq.compiler.weights.spec import Floats, QuantizedWeight, WeightSpec
from edgeq.targets.base import Runner
from edgeq.targets.language.format import Format, Part, QuantizedLayers, Shape
from edgeq.targets.language.packing import pack, packed_words
from edgeq.targets.language.read import open_runner
from edgeq.targets.language.stored import StoredFolder
from edgeq.targets.vllm.configuration import quantization_config
from edgeq.targets.vllm.library import PROVED_BY, decompressed, open_folder

_INT32 = np.dtype(np.int32)
_ASYMMETRIC = (
    "The weights are asymmetric: vLLM reads that. transformers 4.57 does not (with compressed-tensors 0.20 "
    "it expects zero points that are not packed), so the folder was run with weights from the library's own "
    "decompressor."
)


class PackedFormat(Format):
    """Read back by transformers with compressed-tensors."""

    packages: ClassVar[tuple[str, ...]] = ("compressed-tensors", "transformers", "torch")
    proved_by: ClassVar[str] = PROVED_BY

    def parts(self, spec: WeightSpec, shape: Shape) -> dict[str, Part]:
        n, k, groups = shape.outputs, shape.inputs, spec.groups(shape.inputs)
        found = {
            "weight_packed": Part(
                _INT32, (n, packed_words(k, spec.bits)), lambda w: pack(w.codes, spec.bits)
            ),
            "weight_scale": Part(shape.floats, (n, groups), lambda w: w.scales.astype(shape.floats)),
            "weight_shape": Part(np.dtype(np.int64), (2,), lambda w: np.array([n, k], np.int64)),
        }
        if not spec.symmetric:
            words = (packed_words(n, spec.bits), groups)
            found["weight_zero_point"] = Part(_INT32, words, _zero_points)
        return found

    def quantization(self, layers: QuantizedLayers) -> dict[str, Any]:
        return quantization_config(layers, "pack-quantized", None)

    def read(self, stored: StoredFolder, layer: str, spec: WeightSpec, shape: Shape) -> Floats:
        """By the library's own decompressor; see :meth:`Format.read`."""
        return decompressed(stored, layer, list(self.parts(spec, shape)))

    def open(self, folder: Path, *, threads: int | None = None) -> Runner:
        """As transformers loads it; with zero points by the library's decompressor (:data:`_ASYMMETRIC`)."""
        if _asymmetric(folder):
            return open_runner(folder, self, threads)
        return open_folder(folder, threads)

    def streamed(self, folder: Path, *, threads: int | None = None) -> Runner | None:
        return open_runner(folder, self, threads, streamed=True) if _asymmetric(folder) else None

    def notes(self, layers: QuantizedLayers) -> tuple[str, ...]:
        asymmetric = any(not spec.symmetric for spec in layers.specs.values())
        return (*((_ASYMMETRIC,) if asymmetric else ()), *_speed_notes(layers))


def _asymmetric(folder: Path) -> bool:
    return any(not group["weights"]["symmetric"] for group in _groups(folder))


def _groups(folder: Path) -> list[Any]:
    return list(StoredFolder(folder).quantization.get("config_groups", {}).values())


def _speed_notes(layers: QuantizedLayers) -> Iterator[str]:
    """Marlin's rules: https://github.com/vllm-project/vllm, marlin_utils.py."""
    slow = [n for n, (outputs, inputs) in layers.shapes.items() if outputs % 64 or inputs % 128]
    if slow:
        yield (
            f"vLLM's Marlin kernels for GPUs want multiples of 64 outputs and 128 inputs: {len(slow)} "
            f"layers, first {slow[0]!r}, have others and run on slower kernels."
        )


def _zero_points(weight: QuantizedWeight) -> Any:
    assert weight.zero_points is not None
    return pack(np.ascontiguousarray(weight.zero_points.T), weight.spec.bits).T
