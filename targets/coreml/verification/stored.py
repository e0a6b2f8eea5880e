"""How the operations of a written package store their constants."""

from __future__ import annotations

import math

import numpy as np

from edgeq.targets.coreml.interpreter.blobs import SUB_BYTE
from edgeq.targets.coreml.interpreter.call import TensorType
from edgeq.targets.coreml.interpreter.structure import Operation, Value

# The others are parameters of operations: shapes, axes, strides, indices.
_WEIGHT_DTYPES = frozenset({"float16", "float32", "int8", "uint8", *SUB_BYTE})


def storage(operation: Operation) -> str | None:
    """How a ``const`` or ``constexpr_*`` operation stores its tensor; None: it holds no weight."""
    if operation.type == "const":
        value = operation.attributes["val"]
        return value.type.dtype if value.blob and value.type.dtype in _WEIGHT_DTYPES else None
    if not operation.type.startswith("constexpr_"):
        return None
    if "lut" in operation.type:
        return f"lut-{_palette_bits(operation)}"
    if "sparse" in operation.type:
        return "sparse"
    data = parameter(operation, "quantized_data") or parameter(operation, "data")
    return "float16" if data is None else data.type.dtype


def parameter(operation: Operation, name: str) -> Value | None:
    """A constant parameter; constexpr operations of iOS 16 hold theirs as attributes, of iOS 18 as inputs."""
    if name in operation.attributes:
        return operation.attributes[name]
    bound = operation.inputs.get(name, ())
    return bound[0] if len(bound) == 1 and isinstance(bound[0], Value) else None


def value_bytes(type_: TensorType) -> int:
    """Bytes of a stored tensor; types below 8 bits are packed."""
    count = math.prod(size or 0 for size in type_.shape)
    bits = SUB_BYTE.get(type_.dtype) or np.dtype(type_.dtype).itemsize * 8
    return -(-count * bits // 8)


def _palette_bits(operation: Operation) -> int:
    table = parameter(operation, "lut")
    if table is None:
        return 0
    # iOS 16: [entries]; iOS 18: [groups…, entries, vector size]
    entries = table.type.shape[0] if len(table.type.shape) == 1 else table.type.shape[-2]
    return int(math.log2(entries or 1))
