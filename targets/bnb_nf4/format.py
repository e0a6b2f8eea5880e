"""Checkpoints of 4-bit NormalFloat as bitsandbytes saves them.

Of a layer with K inputs and N outputs: ``weight`` uint8 [N * K / 2, 1], two codes a byte, the first one in
the upper half; ``weight.absmax`` the scales of all blocks in one row, float32, or uint8 with
``weight.nested_absmax`` and ``weight.nested_quant_map`` where they are rounded once more;
``weight.quant_map`` the 16 values; ``weight.quant_state.bitsandbytes__nf4`` a JSON text as bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgeq.calibration.types import Array
from edgeq.compiler.weights.spec import NF4_VALUES, Bytes, Floats, QuantizedWeight, WeightSpec
from edgeq.targets.base import Runner
from edgeq.targets.bnb_nf4.double import BLOCK, dynamic_map, round_scales
from edgeq.targets.bnb_nf4.library import PROVED_BY, dequantized, open_folder
from edgeq.targets.language.format import Format, Part, QuantizedLayers, Shape
from edgeq.targets.language.stored import StoredFolder

_FLOAT32, _BYTE = np.dtype(np.float32), np.dtype(np.uint8)
_STATE = "weight.quant_state.bitsandbytes__nf4"


@dataclass(frozen=True)
class Nf4Format(Format):
    """Read back by transformers with bitsandbytes. ``double``: scales are rounded to 8 bits too."""

    double: bool = False
    packages: ClassVar[tuple[str, ...]] = ("bitsandbytes", "transformers", "torch")
    proved_by: ClassVar[str] = PROVED_BY

    def parts(self, spec: WeightSpec, shape: Shape) -> dict[str, Part]:
        blocks = shape.outputs * spec.groups(shape.inputs)
        found = {
            "weight": Part(_BYTE, (shape.outputs * shape.inputs // 2, 1), lambda w: _bytes(w.codes)),
            "weight.quant_map": Part(_FLOAT32, (16,), lambda w: NF4_VALUES),
        }
        if not self.double:
            found["weight.absmax"] = Part(_FLOAT32, (blocks,), lambda w: w.scales.reshape(-1))
            state = _state(spec, shape)
            return {**found, _STATE: Part(_BYTE, (len(state),), lambda w: state)}
        nested = -(-blocks // BLOCK)
        return {
            **found,
            "weight.absmax": Part(_BYTE, (blocks,), lambda w: round_scales(w.scales).codes),
            "weight.nested_absmax": Part(_FLOAT32, (nested,), lambda w: round_scales(w.scales).largest),
            "weight.nested_quant_map": Part(_FLOAT32, (256,), lambda w: dynamic_map()),
            # Its length depends on the digits of a number, so it is padded, which JSON allows.
            _STATE: Part(_BYTE, (_PADDED,), lambda w: _nested_state(w, spec, shape)),
        }

    def final(self, weight: QuantizedWeight) -> QuantizedWeight:
        if not self.double:
            return weight
        return replace(weight, scales=round_scales(weight.scales).values().reshape(weight.scales.shape))

    def quantization(self, layers: QuantizedLayers) -> dict[str, Any]:
        return {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "load_in_8bit": False,
            "_load_in_4bit": True,
            "_load_in_8bit": False,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": self.double,
            "bnb_4bit_quant_storage": "uint8",
            "bnb_4bit_compute_dtype": layers.dtype,
            "llm_int8_skip_modules": list(layers.floats),
        }

    def read(self, stored: StoredFolder, layer: str, spec: WeightSpec, shape: Shape) -> Floats:
        """By bitsandbytes' own dequantization; see :meth:`Format.read`."""
        return dequantized(stored, layer, list(self.parts(spec, shape)))

    def open(self, folder: Path, *, threads: int | None = None) -> Runner:
        return open_folder(folder, threads)


_PADDED = 256


def _bytes(codes: Bytes) -> Array:
    pairs = codes.reshape(-1, 2)
    return ((pairs[:, 0] << 4) | pairs[:, 1]).reshape(-1, 1)


def _state(spec: WeightSpec, shape: Shape, **nested: Any) -> Array:
    content = {
        "quant_type": "nf4",
        "blocksize": spec.group_of(shape.inputs),
        "dtype": shape.floats.name,
        "shape": [shape.outputs, shape.inputs],
        **nested,
    }
    return np.frombuffer(json.dumps(content).encode(), np.uint8)


def _nested_state(weight: QuantizedWeight, spec: WeightSpec, shape: Shape) -> Array:
    offset = float(round_scales(weight.scales).offset)
    nested = {"nested_blocksize": BLOCK, "nested_dtype": "float32", "nested_offset": offset}
    state = _state(spec, shape, **nested)
    return np.concatenate([state, np.full(_PADDED - len(state), ord(" "), np.uint8)])
