"""Safetensors files written tensor by tensor, in shards with an index as transformers reads them.

The format is 8 bytes of header length, a JSON header, then the data: sizes are known before values are made,
so that one tensor is in memory at a time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.compiler.load.checkpoint import DTYPES
from edgeq.errors import InternalError
from edgeq.targets.language.files import INDEX, WEIGHTS

# What a shard holds at most, unless a single tensor is larger: FAT32 and many servers end at 2 GiB.
SHARD_BYTES = 2_000_000_000
_NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class LazyTensor:
    """A tensor whose values are made when they are written."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    make: Callable[[], Array]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def write_shards(
    tensors: Iterable[LazyTensor], folder: Path, *, largest: int = SHARD_BYTES
) -> tuple[str, ...]:
    """Write ``tensors`` into ``folder``; the names of the files, the index last where there is one."""
    shards = _shards(tensors, largest)
    if len(shards) == 1:
        _write(shards[0], folder / WEIGHTS)
        return (WEIGHTS,)
    stem = WEIGHTS.removesuffix(".safetensors")
    names = [f"{stem}-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        _write(shard, folder / name)
    _write_index(names, shards, folder / INDEX)
    return (*names, INDEX)


def _shards(tensors: Iterable[LazyTensor], largest: int) -> list[list[LazyTensor]]:
    shards: list[list[LazyTensor]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.nbytes > largest:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    return shards


def _write(tensors: Sequence[LazyTensor], path: Path) -> None:
    # Wide types first, as safetensors' own writer has it: every tensor begins at a multiple of its item.
    ordered = sorted(tensors, key=lambda tensor: (-tensor.dtype.itemsize, tensor.name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in ordered:
        end = offset + tensor.nbytes
        header[tensor.name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in ordered:
            file.write(_bytes(tensor))


def _bytes(tensor: LazyTensor) -> memoryview:
    values = np.ascontiguousarray(tensor.make())
    if values.dtype != tensor.dtype or values.shape != tensor.shape:
        raise InternalError(
            f"{tensor.name} is {values.dtype}{list(values.shape)}, its header says"
            f" {tensor.dtype}{list(tensor.shape)}."
        )
    return values.reshape(-1).view(np.uint8).data


def _write_index(names: Sequence[str], shards: Sequence[Sequence[LazyTensor]], path: Path) -> None:
    places = {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    total = sum(tensor.nbytes for shard in shards for tensor in shard)
    content = {"metadata": {"total_size": total}, "weight_map": places}
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8", newline="\n")
