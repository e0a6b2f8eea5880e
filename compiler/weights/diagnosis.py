"""Which layers of a language model suffered most from quantizing, and which of them are worth 8 bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeq.compiler.load.checkpoint import StoredTensor
from edgeq.compiler.weights.findings import Diagnosis, LayerDiagnosis
from edgeq.compiler.weights.statistics import InputStatistics
from edgeq.compiler.weights.store import WeightStore

# A layer is worth 8 bits where it loses this many times what the layer in the middle loses.
_ABOVE_MEDIAN = 2.0
# All recommended layers together make the quantized weights larger by this part at most.
_ADDED = 0.05
_WIDE = 8


def outlier_ratio(statistics: InputStatistics) -> float:
    """The largest input over the median of all channels' largest ones."""
    middle = float(np.median(statistics.largest))
    return float(statistics.largest.max()) / middle if middle > 0 else 1.0


def diagnose(store: WeightStore) -> Diagnosis | None:
    """What the records of ``store`` tell; None where nothing was calibrated."""
    known: dict[str, Any] = {}
    for record in store.records.values():
        known |= {name: found for name, found in record.get("layers", {}).items() if "error" in found}
    layers = [_layer(name, known[name], store) for name in store.layers if name in known]
    if not layers:
        return None
    return Diagnosis(layers=tuple(layers), overrides=tuple(_overrides(layers, store)))


def _layer(name: str, known: Mapping[str, Any], store: WeightStore) -> LayerDiagnosis:
    spec = store.spec(name)
    assert spec is not None
    error, added = float(known["error"]), _added_bytes(store.checkpoint.tensors[f"{name}.weight"], spec.bits)
    return LayerDiagnosis(
        layer=name,
        precision=spec.precision,
        error=error,
        outliers=float(known.get("outliers", 1.0)),
        # Every bit halves the step, which quarters the squared error.
        gain=error * (1 - 4.0 ** (spec.bits - _WIDE)) / (added / 1e6) if added else None,
        smoothing=known.get("smoothing"),
    )


def _added_bytes(tensor: StoredTensor, bits: int) -> float:
    return float(np.prod(tensor.shape)) * (_WIDE - bits) / 8


def _overrides(layers: Sequence[LayerDiagnosis], store: WeightStore) -> list[str]:
    """The layers that lose much more than others, those first that gain most per byte."""
    threshold = _ABOVE_MEDIAN * float(np.median([layer.error for layer in layers]))
    bits = {layer.layer: spec.bits for layer in layers if (spec := store.spec(layer.layer)) is not None}
    tensors = {name: store.checkpoint.tensors[f"{name}.weight"] for name in bits}
    left = _ADDED * sum(float(np.prod(tensors[name].shape)) * bits[name] / 8 for name in bits)
    found = []
    for layer in sorted(layers, key=lambda layer: -(layer.gain or 0)):
        added = _added_bytes(tensors[layer.layer], bits[layer.layer])
        if layer.gain is not None and layer.error > threshold and added <= left:
            found.append(f"{layer.layer}=int8")
            left -= added
    return found
