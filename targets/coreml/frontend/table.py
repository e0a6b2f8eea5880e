"""The one table: (domain, op type) → handler. Families register their handlers here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.node import OnnxNode
from edgeq.targets.coreml.registered import collect

# A handler returns the outputs: MIL variables, or numpy arrays where the result is a constant. A single
# output may be returned bare. Outputs that nobody wants may be None.
Result = Any | Array | Sequence[Any | Array | None]
Handler = Callable[[OnnxNode], Result]

_FAMILIES = (
    "activation",
    "attention",
    "comparison",
    "convolution",
    "gather_scatter",
    "linear",
    "math",
    "normalization",
    "pooling",
    "quantization",
    "recurrent",
    "reduction",
    "resize",
    "shape",
)

# "Relu", or "com.microsoft.MatMulNBits" for other domains.
HANDLERS: Mapping[str, Handler] = collect("edgeq.targets.coreml.ops", _FAMILIES, "HANDLERS")


def op_key(domain: str, op_type: str) -> str:
    """The name of an op in the table."""
    return op_type if domain in ("", "ai.onnx") else f"{domain}.{op_type}"


def handler_of(domain: str, op_type: str) -> Handler | None:
    """The handler of an op, None when there is none."""
    return HANDLERS.get(op_key(domain, op_type))
