"""Which values are constants, and the small ones among them read; weights are never read."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgeq.calibration.types import Array

# Scales and zero points: one for each channel or block. Larger tensors are weights.
_LARGEST = 1 << 26
# What exporters put between an initializer and its reader without changing what it means.
_PASSING = ("Identity", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten")


@dataclass(frozen=True)
class Constants:
    """Answers are remembered: graphs share scales."""

    _known: dict[ir.Value, bool] = field(default_factory=dict)
    _arrays: dict[ir.Value, Array | None] = field(default_factory=dict)

    def known(self, value: ir.Value | None) -> bool:
        """Whether a value is an initializer, a Constant, or one of these in another form."""
        if value is None:
            return False
        if value not in self._known:
            self._known[value] = tensor_of(value) is not None or self._passed(value) is not None
        return self._known[value]

    def array(self, value: ir.Value | None) -> Array | None:
        """The numbers of a small constant in float64 (integers as they are), else None."""
        if value is None:
            return None
        if value not in self._arrays:
            self._arrays[value] = self._read(value)
        return self._arrays[value]

    def dtype(self, value: ir.Value | None) -> ir.DataType | None:
        """The element type of a value."""
        if value is None:
            return None
        tensor = tensor_of(value)
        return tensor.dtype if tensor is not None else value.dtype

    def _read(self, value: ir.Value) -> Array | None:
        tensor = tensor_of(value)
        if tensor is None:
            source = self._passed(value)
            return None if source is None else self.array(source)
        if tensor.size > _LARGEST or tensor.dtype == ir.DataType.STRING:
            return None
        array = np.asarray(tensor.numpy())
        return array.astype(np.int64 if tensor.dtype.is_integer() else np.float64)

    def _passed(self, value: ir.Value) -> ir.Value | None:
        """The constant behind an op that only passes it on."""
        producer = value.producer()
        if producer is None or producer.domain or producer.op_type not in _PASSING or not producer.inputs:
            return None
        source = producer.inputs[0]
        return source if self.known(source) else None


def tensor_of(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor of an initializer or of a Constant node."""
    if value.const_value is not None:
        return value.const_value
    producer = value.producer()
    if producer is None or producer.op_type != "Constant" or producer.domain:
        return None
    found = next((a for a in producer.attributes.values() if a.name.startswith("value")), None)
    if found is None or found.is_ref():
        return None
    return found.as_tensor() if found.type == ir.AttributeType.TENSOR else _from_attribute(found)


def _from_attribute(found: ir.Attr) -> ir.TensorProtocol | None:
    """``value_int``, ``value_floats`` and their likes."""
    if found.type in (ir.AttributeType.FLOAT, ir.AttributeType.FLOATS):
        return ir.tensor(np.asarray(found.value, np.float32))
    if found.type in (ir.AttributeType.INT, ir.AttributeType.INTS):
        return ir.tensor(np.asarray(found.value, np.int64))
    return None
