"""Reads a GGUF file back with the gguf package, and gives its weights to transformers: the reference."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.compiler.weights.spec import Floats
from edgeq.errors import MissingExtraError, ModelError
from edgeq.targets.gguf.files import MODEL
from edgeq.targets.gguf.settings import Settings
from edgeq.targets.language.model import build_model
from edgeq.targets.language.runner import LanguageRunner
from edgeq.targets.language.streamed import streamed_model


class GgufFile:
    """The tensors of a file by name; they are mapped and dequantized when they are asked for."""

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises:
            MissingExtraError: the gguf package is not installed.
            ModelError: the file is missing or damaged.
        """
        try:
            import gguf
        except ImportError as error:
            raise MissingExtraError("Reading GGUF files", "gguf") from error
        try:
            self.reader: Any = gguf.GGUFReader(str(path))
        except (OSError, ValueError, KeyError, IndexError, UnicodeDecodeError) as error:
            raise ModelError(f"{path} cannot be read: {error}.", fix="Compile the model again.") from error

    @cached_property
    def tensors(self) -> dict[str, Any]:
        """Name → ``gguf.ReaderTensor``."""
        return {tensor.name: tensor for tensor in self.reader.tensors}

    @cached_property
    def types(self) -> dict[str, str]:
        """Name → ggml's type (``Q4_K``)."""
        return {name: tensor.tensor_type.name for name, tensor in self.tensors.items()}

    def float32(self, name: str) -> Floats:
        """The values of a tensor as its blocks hold them."""
        from gguf.quants import dequantize

        tensor = self.tensors[name]
        # Blocks without an element that is not zero have no scale, whose reciprocal is not read.
        with np.errstate(all="ignore"):
            found = dequantize(tensor.data, tensor.tensor_type)
        return np.asarray(found, np.float32).reshape(tuple(int(size) for size in tensor.shape[::-1]))


def open_reference(folder: Path, *, threads: int | None = None, streamed: bool = False) -> LanguageRunner:
    """The artefact in ``folder`` with its values in float32 and exact arithmetic, in PyTorch.

    ``streamed``: values are read again in every run, one matrix at a time, in place of all at once.

    Raises:
        ModelError: the artefact is damaged.
        MissingExtraError: PyTorch or transformers is not installed.
    """
    settings, file = Settings.read(folder), GgufFile(folder / MODEL)
    places = {stored.source: stored.place for stored in settings.tensors}

    def read(source: str) -> Array:
        place = places[source]
        return place.from_file(file.float32(place.name))

    build = streamed_model if streamed else build_model
    model = build(folder, settings.architecture, list(places), read)
    return LanguageRunner(model, threads=threads)
