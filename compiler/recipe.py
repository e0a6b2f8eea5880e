"""What the user asks for, as one serialisable value: what was built can be built again from it."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Scheme = Literal[
    "fp32",
    "fp16",
    "int8-static",
    "fp8-static",
    "int8-dynamic",
    "int8-weight",
    "int4-weight",
    "int3-weight",
    "int2-weight",
    "nf4-weight",
    "palettize-6",
    "palettize-4",
]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)

RangeMethod = Literal["auto", "minmax", "percentile", "entropy", "mse"]
Precision = Literal["fp32", "fp16", "int8", "fp8", "int4", "int3", "int2", "nf4", "pal6", "pal4"]
BLOCK_SIZES = (16, 32, 64, 128, 256)
# How the weights of language models are rounded: each is one file of compiler/weights.
WeightMethod = Literal["rtn", "gptq", "awq", "smoothquant"]


class Override(BaseModel):
    """Precision of some nodes. ``match`` is a glob on the node's name, or ``op:Type`` for an op type."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: str
    precision: Precision


class Recipe(BaseModel):
    """Scheme, range method and overrides. Field defaults are the defaults of the product.

    ``block_size`` None: the target's own (``Capabilities.block_size``); -1: a scale per output channel.
    ``weight_method``, ``damping`` (of the Hessian's diagonal, as a part of its mean) and ``act_order``
    (columns of large activations first) are of targets that store checkpoints; method None: ``rtn``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheme: Scheme
    range_method: RangeMethod = "auto"
    percentile: float = Field(default=99.999, gt=50, le=100)
    bias_correction: bool = True
    smoothing: bool = True
    block_size: Literal[-1, 16, 32, 64, 128, 256] | None = None
    weight_method: WeightMethod | None = None
    damping: float = Field(default=0.01, gt=0, le=1)
    act_order: bool = True
    symmetric_weights: bool = True
    accuracy_level: Literal[0, 4] = 0
    saturation_safe: bool = True
    calibration_samples: int = Field(default=300, ge=1)
    overrides: tuple[Override, ...] = ()
