"""The layout of AWQ checkpoints for GEMM kernels, as AutoAWQ defined it.

Of a layer with K inputs, N outputs and G groups: ``qweight`` int32 [K, N / 8], codes packed along the
outputs; ``qzeros`` int32 [G, N / 8], zero points as they are, packed likewise; ``scales`` [G, N]. The eight
values of a word are outputs in the order 0, 2, 4, 6, 1, 3, 5, 7, lowest bits first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgeq.calibration.types import Array
from edgeq.compiler.weights.spec import Bytes, Floats, QuantizedWeight, WeightSpec
from edgeq.targets.base import Runner
from edgeq.targets.language.format import Format, Part, QuantizedLayers, Shape
from edgeq.targets.language.packing import Words, pack, unpack
from edgeq.targets.language.stored import StoredFolder

_BITS, _PER_WORD = 4, 8
_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
_INT32 = np.dtype(np.int32)


class AwqFormat(Format):
    """Reads folders by itself, in PyTorch: no kernels for AWQ are needed to prove them."""

    packages: ClassVar[tuple[str, ...]] = ("transformers", "torch")
    proved_by: ClassVar[str] = "edgeq's own reader of AWQ folders, in PyTorch"

    def parts(self, spec: WeightSpec, shape: Shape) -> dict[str, Part]:
        n, k, groups = shape.outputs, shape.inputs, spec.groups(shape.inputs)
        return {
            "qweight": Part(_INT32, (k, n // _PER_WORD), lambda w: _interleaved(w.codes.T)),
            "qzeros": Part(_INT32, (groups, n // _PER_WORD), _qzeros),
            "scales": Part(shape.floats, (groups, n), lambda w: w.scales.T.astype(shape.floats)),
        }

    def quantization(self, layers: QuantizedLayers) -> dict[str, Any]:
        spec = next(iter(layers.specs.values()))
        return {
            "quant_method": "awq",
            "version": "gemm",
            "bits": spec.bits,
            "group_size": spec.group_size,
            "zero_point": True,
            "modules_to_not_convert": list(layers.floats),
        }

    def read(self, stored: StoredFolder, layer: str, spec: WeightSpec, shape: Shape) -> Floats:
        """By what the folder itself says of groups; see :meth:`Format.read`."""
        group = stored.quantization.get("group_size", 0)
        codes = _ordered(stored.array(f"{layer}.qweight"), shape.outputs)
        zeros = _ordered(stored.array(f"{layer}.qzeros"), shape.outputs)
        scales = stored.array(f"{layer}.scales").astype(np.float32)
        place = np.arange(shape.inputs) // max(int(group), 1)
        centred = codes.astype(np.float32) - zeros.astype(np.float32)[place]
        return np.ascontiguousarray((centred * scales[place]).T)

    def open(self, folder: Path, *, threads: int | None = None) -> Runner:
        from edgeq.targets.language.read import open_runner

        return open_runner(folder, self, threads)

    def streamed(self, folder: Path, *, threads: int | None = None) -> Runner | None:
        from edgeq.targets.language.read import open_runner

        return open_runner(folder, self, threads, streamed=True)


def _qzeros(weight: QuantizedWeight) -> Array:
    if weight.zero_points is None:
        return _interleaved(np.full(weight.scales.T.shape, weight.spec.centre, np.uint8))
    return _interleaved(weight.zero_points.T)


def _interleaved(values: Bytes) -> Words:
    """int32 [rows, N / 8] of codes [rows, N]."""
    words = values.reshape(len(values), -1, _PER_WORD)[:, :, _ORDER]
    return pack(np.ascontiguousarray(words).reshape(values.shape), _BITS)


def _ordered(words: Words, outputs: int) -> Bytes:
    """What :func:`_interleaved` made int32 of: codes [rows, N]."""
    values = unpack(words, _BITS, outputs).reshape(len(words), -1, _PER_WORD)
    return np.ascontiguousarray(values[:, :, np.argsort(_ORDER)]).reshape(len(words), outputs)
