"""Moves a package's constants into another weights file; those that became something else are left behind."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.interpreter.values import ValueReader
from edgeq.targets.coreml.toolkit import coremltools

Message = Any

WEIGHTS_FILE = "weight.bin"

_WRITERS: Mapping[str, str] = MappingProxyType(
    {"float16": "write_fp16_data", "float32": "write_float_data"}
    | {f"{sign}int{bits}": f"write_{sign}int{bits}_data" for sign in ("", "u") for bits in (4, 8, 16, 32)}
    | {f"uint{bits}": f"write_uint{bits}_data" for bits in (1, 2, 3, 6)}
)


class BlobWriter:
    """Appends tensors to the weights file of a package."""

    def __init__(self, folder: Path) -> None:
        coremltools()
        from coremltools.libmilstoragepython import _BlobStorageWriter

        self._writer = _BlobStorageWriter(str(folder / WEIGHTS_FILE))

    def write(self, array: Array, dtype: str) -> int:
        """Append ``array`` as MIL's ``dtype`` (integers below 8 bits come as int8 or uint8); its offset."""
        flat = np.ascontiguousarray(array).reshape(-1)
        if dtype == "float16":
            flat = flat.astype(np.float16, copy=False).view(np.uint16)
        return int(getattr(self._writer, _WRITERS[dtype])(flat))


def move_blobs(spec: Message, source: Path, writer: BlobWriter, *, without: Collection[str]) -> None:
    """Copy the constants of ``spec`` from the folder ``source``, but not of the operations ``without``."""
    values = ValueReader(source)
    moved: dict[int, int] = {}
    for message in constants(spec, without):
        if message.WhichOneof("value") == "blobFileValue":
            blob = message.blobFileValue
            if blob.offset not in moved:
                value = values.read(message, "a constant")
                moved[blob.offset] = writer.write(value.decode(), value.type.dtype)
            blob.offset = moved[blob.offset]


def constants(spec: Message, without: Collection[str] = ()) -> Iterator[Message]:
    """Every constant of the program, in an order that does not depend on the process."""
    for name in sorted(spec.mlProgram.functions):
        blocks = spec.mlProgram.functions[name].block_specializations
        for opset in sorted(blocks):
            yield from _constants(blocks[opset], without)


def _constants(block: Message, without: Collection[str]) -> Iterator[Message]:
    for operation in block.operations:
        if operation.outputs and operation.outputs[0].name in without:
            continue
        for name in sorted(operation.attributes):
            yield operation.attributes[name]
        for name in sorted(operation.inputs):
            for binding in operation.inputs[name].arguments:
                if binding.WhichOneof("binding") == "value":
                    yield binding.value
        for nested in operation.blocks:
            yield from _constants(nested, without)
