"""The compiler's layer table as values: the kernels of an engine, their types, the ONNX nodes in them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class LayerTensor(BaseModel):
    """An input, constant or output of a layer; ``dtype`` as the compiler writes it (Int8, Half, Float, …)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    dtype: str
    shape: tuple[int, ...]


class Layer(BaseModel):
    """One kernel. ``nodes`` are the names of the ONNX nodes that were fused into it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: str
    inputs: tuple[LayerTensor, ...]
    constants: tuple[LayerTensor, ...]
    outputs: tuple[LayerTensor, ...]
    nodes: tuple[str, ...]
    tactic: str = ""


class LayerTable(BaseModel):
    """All layers of an engine on one compute capability (86 = 8.6; 0: the GPU that it was built on)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sm: int
    layers: tuple[Layer, ...]
