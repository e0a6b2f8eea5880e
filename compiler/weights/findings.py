"""What is told of a quantized language model, layer by layer: a part of the manifest."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class LayerDiagnosis(BaseModel):
    """``error``: the squared error of the layer's outputs divided by their square sum, on calibration text.

    ``outliers``: the largest input of any channel over that of the channel in the middle. ``gain``: how much
    of ``error`` 8 bits would take away, per megabyte that they would add; None: it has 8 bits.
    ``smoothing``: SmoothQuant's migration strength in what the layer reads, 0 where none helped; None:
    nothing before it can be divided, or another method.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layer: str
    precision: str
    error: float
    outliers: float
    gain: float | None
    smoothing: float | None = None


class Diagnosis(BaseModel):
    """Layers in the model's order, and overrides for those that are worth 8 bits, the best first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: tuple[LayerDiagnosis, ...]
    overrides: tuple[str, ...]
