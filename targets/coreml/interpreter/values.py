"""Types and constants of MIL protobuf messages."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.errors import ModelError
from edgeq.targets.coreml.interpreter.blobs import SUB_BYTE, BlobFile, storage, unpack_bits
from edgeq.targets.coreml.interpreter.call import TensorType
from edgeq.targets.coreml.interpreter.structure import Value

Message = Any  # protobuf messages have no types

_DTYPES: Mapping[int, str] = MappingProxyType(
    {
        1: "bool",
        2: "string",
        10: "float16",
        11: "float32",
        12: "float64",
        21: "int8",
        22: "int16",
        23: "int32",
        24: "int64",
        25: "int4",
        31: "uint8",
        32: "uint16",
        33: "uint32",
        34: "uint64",
        35: "uint4",
        36: "uint2",
        37: "uint1",
        38: "uint6",
        39: "uint3",
    }
)
_MODEL_PATH = "@model_path/"


def tensor_type(message: Message, where: str) -> TensorType:
    """The type of a MIL ``ValueType``; lists and dictionaries are vectors of their elements."""
    kind = message.WhichOneof("type")
    if kind == "dictionaryType":
        return TensorType(tensor_type(message.dictionaryType.valueType, where).dtype, (None,))
    if kind == "listType":
        return TensorType(tensor_type(message.listType.type, where).dtype, (None,))
    if kind != "tensorType":
        raise ModelError(f"The package is not valid: {where} has the type {kind}, expected a tensor.")
    tensor = message.tensorType
    dtype = _DTYPES.get(tensor.dataType)
    if dtype is None:
        raise ModelError(
            f"The package has {where} of data type {tensor.dataType}, which edgeq does not know."
        )
    return TensorType(dtype, tuple(_dimension(d) for d in tensor.dimensions))


def _dimension(message: Message) -> int | None:
    return int(message.constant.size) if message.WhichOneof("dimension") == "constant" else None


class ValueReader:
    """Makes :class:`Value` of MIL ``Value`` messages; ``folder`` is where ``@model_path`` points to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, BlobFile] = {}

    def read(self, message: Message, where: str) -> Value:
        """The constant; blobs stay on disk until they are decoded."""
        kind = message.WhichOneof("value")
        if message.type.WhichOneof("type") == "dictionaryType":
            return Value(TensorType("string", ()), lambda: _refuse_dictionary(where))
        type_ = tensor_type(message.type, where)
        if kind == "blobFileValue":
            return Value(type_, self._blob(message.blobFileValue, type_, where), blob=True)
        if kind != "immediateValue":
            raise ModelError(f"The package is not valid: {where} has no value.")
        return Value(type_, lambda: _immediate(message.immediateValue, type_, where))

    def _blob(self, message: Message, type_: TensorType, where: str) -> Callable[[], Array]:
        file, shape = self._file(message.fileName, where), _static(type_, where)
        offset, count = int(message.offset), math.prod(shape)
        # a bad blob is a bad package: say so while reading it, not at the first use
        file.check(offset, type_.dtype, count)
        return lambda: file.read(offset, type_.dtype, count).reshape(shape)

    def _file(self, name: str, where: str) -> BlobFile:
        if name not in self._files:
            path = self._folder / name.removeprefix(_MODEL_PATH)
            # No file is called so, and asking the system about such a path raises.
            if "\0" in name:
                raise ModelError(f"The package is not valid: {where} lies in {name!r}, which is no file.")
            if not name.startswith(_MODEL_PATH) or not path.resolve().is_relative_to(self._folder.resolve()):
                raise ModelError(f"The package is not valid: {where} lies in {name!r}, outside the package.")
            self._files[name] = BlobFile(path)
        return self._files[name]


def _static(type_: TensorType, where: str) -> tuple[int, ...]:
    if any(size is None for size in type_.shape):
        raise ModelError(f"The package is not valid: {where} is constant and its shape is not.")
    return tuple(size for size in type_.shape if size is not None)


def _refuse_dictionary(where: str) -> None:
    raise ModelError(f"The package has {where} with a dictionary, which edgeq does not read.")


def _immediate(message: Message, type_: TensorType, where: str) -> Any:
    kind = message.WhichOneof("value")
    if kind == "list":
        return [
            _immediate(item.immediateValue, tensor_type(item.type, where), where)
            for item in message.list.values
        ]
    if kind != "tensor":
        raise ModelError(f"The package is not valid: {where} holds a {kind}, expected a tensor.")
    shape = _static(type_, where)
    held = message.tensor.WhichOneof("value")
    content = getattr(message.tensor, held).values if held else []
    if type_.dtype == "string":
        return content[0] if shape == () and len(content) == 1 else list(content)
    flat = (
        _from_bytes(message.tensor.bytes.values, type_, math.prod(shape))
        if held == "bytes"
        else np.array(content, storage(type_.dtype))
    )
    if flat.size != math.prod(shape):
        raise ModelError(f"The package is not valid: {where} has {flat.size} elements, its shape is {shape}.")
    return flat.reshape(shape)


def _from_bytes(content: bytes, type_: TensorType, count: int) -> Array:
    if type_.dtype in SUB_BYTE:
        return unpack_bits(np.frombuffer(content, np.uint8), type_.dtype, count)
    dtype = np.dtype(type_.dtype).newbyteorder("<")
    whole = len(content) // dtype.itemsize * dtype.itemsize
    return np.frombuffer(content[:whole], dtype)
