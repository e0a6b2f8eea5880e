"""Operators that only rearrange the numbers of their first input: rounding and scaling pass through them."""

from __future__ import annotations

import onnx_ir as ir

_MOVES = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})


def moved_from(value: ir.Value) -> ir.Value:
    """The value whose numbers ``value`` has in another order or shape; itself where it was not moved."""
    producer = value.producer()
    while producer is not None and producer.op_type in _MOVES and producer.inputs[0] is not None:
        value = producer.inputs[0]
        producer = value.producer()
    return value
