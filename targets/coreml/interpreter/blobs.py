"""Reads weights files in MIL's blob storage format (version 2) as memory maps."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from edgeq.calibration.types import Array
from edgeq.errors import ModelError

_ALIGNMENT = 64
_SENTINEL = 0xDEADBEEF
_VERSION = 2
_HEADER = struct.Struct("<II")  # number of blobs, version
_METADATA = struct.Struct("<IIQQQ")  # sentinel, dtype, bytes, offset of the data, unused bits at its end

_DTYPES: Mapping[int, str] = MappingProxyType(
    {
        1: "float16",
        2: "float32",
        3: "uint8",
        4: "int8",
        6: "int16",
        7: "uint16",
        8: "int4",
        9: "uint1",
        10: "uint2",
        11: "uint4",
        12: "uint3",
        13: "uint6",
        14: "int32",
        15: "uint32",
    }
)
# Bits of an element that is smaller than a byte.
SUB_BYTE: Mapping[str, int] = MappingProxyType(
    {"int4": 4, "uint1": 1, "uint2": 2, "uint3": 3, "uint4": 4, "uint6": 6}
)


def storage(dtype: str) -> str:
    """The numpy dtype that holds integers of a MIL type."""
    if dtype not in SUB_BYTE:
        return dtype
    return "int8" if dtype.startswith("i") else "uint8"


def unpack_bits(packed: Array, dtype: str, count: int) -> Array:
    """``count`` elements of a type below one byte, packed as little-endian bits, as int8 or uint8."""
    bits = SUB_BYTE[dtype]
    if bits == 4:
        return _unpack_nibbles(packed, dtype)[:count]
    digits = np.unpackbits(packed, bitorder="little")[: count * bits].reshape(count, bits)
    return np.packbits(digits, axis=1, bitorder="little").reshape(count)


def _unpack_nibbles(packed: Array, dtype: str) -> Array:
    both = np.empty((packed.size, 2), np.uint8)
    np.bitwise_and(packed, 15, out=both[:, 0])
    np.right_shift(packed, 4, out=both[:, 1])
    flat = both.reshape(-1)
    if dtype == "uint4":
        return flat
    # sign extension: 8 … 15 are -8 … -1
    return ((flat ^ 8).astype(np.int8)) - np.int8(8)


class BlobFile:
    """A weights file; nothing is read before :meth:`read`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            size = path.stat().st_size
            if size < _ALIGNMENT:
                raise ModelError(f"The weights file {path} is truncated: it has {size} bytes and no header.")
            self._bytes = np.memmap(path, np.uint8, mode="r")
        except OSError as error:
            raise ModelError(f"The weights file {path} cannot be read: {error.strerror}.") from error
        _, version = _HEADER.unpack(self._bytes[: _HEADER.size].tobytes())
        if version != _VERSION:
            raise ModelError(f"The weights file {path} has storage version {version}, expected {_VERSION}.")

    def read(self, offset: int, dtype: str, count: int) -> Array:
        """The ``count`` elements of the blob whose metadata starts at ``offset``, flat."""
        start, size = self._locate(offset, dtype, count)
        data = np.asarray(self._bytes[start : start + size])
        if dtype in SUB_BYTE:
            return unpack_bits(data, dtype, count)
        return data.view(np.dtype(dtype).newbyteorder("<"))

    def check(self, offset: int, dtype: str, count: int) -> None:
        """Raise a ModelError when the blob is not what the program says."""
        self._locate(offset, dtype, count)

    def _locate(self, offset: int, dtype: str, count: int) -> tuple[int, int]:
        where = f"The blob at offset {offset} of {self._path}"
        if offset + _ALIGNMENT > self._bytes.size:
            raise ModelError(f"{where} lies behind the end of the file ({self._bytes.size} bytes).")
        sentinel, code, size, start, padding = _METADATA.unpack(
            self._bytes[offset : offset + _METADATA.size].tobytes()
        )
        if sentinel != _SENTINEL:
            raise ModelError(f"{where} starts with {sentinel:#x}, expected the sentinel {_SENTINEL:#x}.")
        if _DTYPES.get(code) != dtype:
            raise ModelError(f"{where} holds {_DTYPES.get(code, f'type {code}')}, the program says {dtype}.")
        if start + size > self._bytes.size:
            raise ModelError(
                f"{where} is truncated: its {size} bytes from {start} end behind the file "
                f"({self._bytes.size} bytes)."
            )
        sub_byte = SUB_BYTE.get(dtype)
        bits = count * (sub_byte or 8 * np.dtype(dtype).itemsize)
        if bits != size * 8 - (padding if sub_byte else 0):
            raise ModelError(f"{where} has {size} bytes, and {count} elements of {dtype} need another size.")
        return start, size
