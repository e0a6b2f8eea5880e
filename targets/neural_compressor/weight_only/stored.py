"""What the weights of an artefact's folder are stored as."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeq.errors import ModelError
from edgeq.targets.neural_compressor.weight_only.files import G_IDX, QWEIGHT, QZEROS, SCALES, WEIGHTS
from edgeq.targets.neural_compressor.weight_only.packing import PACKED

_PARTS = {QWEIGHT: "I32", QZEROS: "I32", SCALES: "F16", G_IDX: "I32"}
_FLOATS = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}


class StoredLayers:
    """Layer name → the form of its weights in the file."""

    def __init__(self, folder: Path) -> None:
        """Read the header of the weights in ``folder``; raises ModelError."""
        self._tensors = read_header(folder / WEIGHTS)

    def form(self, name: str) -> str | None:
        """``int4``, ``fp16`` or ``fp32``; None when parts of its weights are missing."""
        if all(self._dtype(f"{name}.{part}") == dtype for part, dtype in _PARTS.items()):
            return "int4" if self._packed(name) else None
        return _FLOATS.get(self._dtype(f"{name}.weight"))

    def _dtype(self, tensor: str) -> str:
        return str(self._tensors.get(tensor, {}).get("dtype", ""))

    def _packed(self, name: str) -> bool:
        """Whether the shapes are those of packed numbers, over as many inputs as ``g_idx`` has."""
        shapes = {part: self._tensors[f"{name}.{part}"]["shape"] for part in _PARTS}
        rows, outputs = shapes[QWEIGHT]
        blocks, columns = shapes[QZEROS]
        return (
            shapes[G_IDX] == [rows * PACKED]
            and shapes[SCALES] == [blocks, outputs]
            and columns * PACKED == outputs
            and f"{name}.weight" not in self._tensors
        )


def read_header(path: Path) -> dict[str, Any]:
    """Tensor name → dtype and shape, as a safetensors file says: 8 bytes of length, then JSON.

    Raises:
        ModelError: the file is missing or damaged.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if 0 < length <= path.stat().st_size else None
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(header, dict):
        raise _damaged(path, "it is no safetensors file")
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def _damaged(path: Path, why: str) -> ModelError:
    return ModelError(f"{path} cannot be read: {why}.", fix="Compile the model again.")
