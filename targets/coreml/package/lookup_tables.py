"""MIL's ``constexpr_lut_to_dense`` as protobuf message, in the form of iOS 16 and in that of iOS 18."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.package.blobs import WEIGHTS_FILE, BlobWriter
from edgeq.targets.coreml.package.clustering import Palette
from edgeq.targets.coreml.toolkit import coremltools

Message = Any

_FILE = f"@model_path/weights/{WEIGHTS_FILE}"
# indices packed at once: whole bytes for every number of bits, little memory
_CHUNK = 1 << 22


@dataclass(frozen=True)
class LookupTables:
    """A weight as palettes: one, or one per group of channels along ``axis``."""

    palettes: Sequence[Palette]
    axis: int | None

    @property
    def indices(self) -> Array:
        """The indices of the whole weight, in its shape."""
        return np.concatenate([palette.indices for palette in self.palettes], self.axis or 0)

    def decoded(self) -> Array:
        """The float16 numbers that they stand for."""
        return np.concatenate([palette.decoded() for palette in self.palettes], self.axis or 0)

    def tables(self, rank: int) -> Array:
        """The tables in the shape that iOS 18 wants: the weight's rank in groups, entries, 1."""
        shape = [1] * rank
        if self.axis is not None:
            shape[self.axis] = len(self.palettes)
        entries = np.stack([palette.table for palette in self.palettes])
        return entries.reshape(*shape, entries.shape[-1], 1)

    @property
    def bits(self) -> int:
        """Bits of an index."""
        return int(np.log2(self.palettes[0].table.size))


def lookup_operation(
    constant: Message, dtype: str, tables: LookupTables, writer: BlobWriter, *, ios: int
) -> Message:
    """The operation that replaces the ``const`` operation ``constant`` of a float ``dtype``.

    The form depends on the function's opset: packed indices and a table as attributes up to iOS 17, inputs
    with types below 8 bits and tables per group from iOS 18 on.
    """
    result = coremltools().proto.MIL_pb2.Operation(type="constexpr_lut_to_dense", outputs=constant.outputs)
    result.attributes["name"].CopyFrom(constant.attributes["name"])
    indices = tables.indices
    table = tables.tables(indices.ndim).astype(dtype)
    if ios >= 18:
        for name, array, kind in (("indices", indices, f"uint{tables.bits}"), ("lut", table, dtype)):
            binding = result.inputs[name].arguments.add()
            binding.value.CopyFrom(_stored(array, kind, writer))
        return result
    result.attributes["indices"].CopyFrom(_stored(_packed(indices, tables.bits), "uint8", writer))
    result.attributes["lut"].CopyFrom(_stored(table.reshape(-1), dtype, writer))
    result.attributes["shape"].CopyFrom(_immediate(np.array(indices.shape, np.uint32)))
    return result


def _stored(array: Array, dtype: str, writer: BlobWriter) -> Message:
    coremltools()
    from coremltools.converters.mil.backend.mil.helper import (
        create_file_value_tensor,
        types_to_proto_primitive,
    )
    from coremltools.converters.mil.mil.types import string_to_builtin

    names = {"float16": "fp16", "float32": "fp32"}
    primitive = types_to_proto_primitive(string_to_builtin(names.get(dtype, dtype)))
    return create_file_value_tensor(_FILE, writer.write(array, dtype), array.shape, primitive)


def _immediate(array: Array) -> Message:
    coremltools()
    from coremltools.converters.mil.backend.mil.helper import create_tensor_value

    return create_tensor_value(array)


def _packed(indices: Array, bits: int) -> Array:
    """The indices as little-endian bit fields."""
    coremltools()
    from coremltools.optimize._utils import pack_elements_into_bits

    flat = indices.reshape(-1)
    parts = [pack_elements_into_bits(flat[i : i + _CHUNK], bits) for i in range(0, flat.size, _CHUNK)]
    return np.concatenate(parts)
