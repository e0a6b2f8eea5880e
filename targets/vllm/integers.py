"""compressed-tensors' ``int-quantized``: INT8 weights, and activations rounded to INT8 when they are made.

Of a layer with K inputs and N outputs: ``weight`` int8 [N, K], ``weight_scale`` [N, 1]. Every token's inputs
share one scale, the largest of them / 127.5, which the engine computes (W8A8).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgeq.compiler.weights.activations import round_tokens
from edgeq.compiler.weights.spec import Floats, QuantizedWeight, WeightSpec
from edgeq.targets.base import Runner
from edgeq.targets.language.format import Format, Part, QuantizedLayers, Shape
from edgeq.targets.language.stored import StoredFolder
from edgeq.targets.vllm.configuration import quantization_config
from edgeq.targets.vllm.library import PROVED_BY, decompressed, open_folder

_ACTIVATIONS = {
    "num_bits": 8,
    "type": "int",
    "symmetric": True,
    "strategy": "token",
    "dynamic": True,
    "observer": None,
}


class IntegerFormat(Format):
    """Read back by transformers with compressed-tensors, which rounds activations and computes in float."""

    packages: ClassVar[tuple[str, ...]] = ("compressed-tensors", "transformers", "torch")
    proved_by: ClassVar[str] = PROVED_BY
    rounds_inputs: ClassVar[bool] = True

    def parts(self, spec: WeightSpec, shape: Shape) -> dict[str, Part]:
        n, k = shape.outputs, shape.inputs
        return {
            "weight": Part(np.dtype(np.int8), (n, k), _signed),
            "weight_scale": Part(shape.floats, (n, 1), lambda w: w.scales.astype(shape.floats)),
        }

    def quantization(self, layers: QuantizedLayers) -> dict[str, Any]:
        return quantization_config(layers, "int-quantized", _ACTIVATIONS)

    def read(self, stored: StoredFolder, layer: str, spec: WeightSpec, shape: Shape) -> Floats:
        """By the library's own decompressor; see :meth:`Format.read`."""
        return decompressed(stored, layer, list(self.parts(spec, shape)))

    def open(self, folder: Path, *, threads: int | None = None) -> Runner:
        return open_folder(folder, threads)

    def round_inputs(self, x: Any) -> Any:
        """Inputs [batch, tokens, K] of a quantized layer as engines round them, in float."""
        return round_tokens(x)


def _signed(weight: QuantizedWeight) -> Any:
    return (weight.codes.astype(np.int16) - weight.spec.centre).astype(np.int8)
