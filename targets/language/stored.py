"""The tensors of an artefact's folder, by name, from all its shards."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from edgeq.calibration.types import Array
from edgeq.compiler.load.checkpoint import StoredTensor, read_safetensors
from edgeq.errors import ModelError
from edgeq.targets.language.files import CONFIG, INDEX, WEIGHTS


class StoredFolder:
    """Headers are read at once, values when they are asked for."""

    def __init__(self, path: Path) -> None:
        """Read the headers.

        Raises:
            ModelError: files are missing or damaged.
        """
        self.path = path
        self.tensors: dict[str, StoredTensor] = {}
        for file in _files(path):
            self.tensors.update(read_safetensors(path / file))

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of ``config.json``; raises ModelError."""
        return _json(self.path / CONFIG)

    @property
    def architecture(self) -> str:
        """The class of transformers that runs the model; raises ModelError."""
        named = self.config.get("architectures")
        if not isinstance(named, list) or not named:
            raise _damaged(self.path / CONFIG, "it names no architecture")
        return str(named[0])

    @property
    def quantization(self) -> dict[str, Any]:
        """``quantization_config`` of the configuration, empty where it has none; raises ModelError."""
        found = self.config.get("quantization_config")
        return found if isinstance(found, dict) else {}

    def array(self, name: str) -> Array:
        """The values of a tensor; raises ModelError when there is none of that name."""
        if name not in self.tensors:
            raise _damaged(self.path, f"there is no tensor {name!r}")
        return self.tensors[name].array()


def _files(path: Path) -> list[str]:
    if not (path / INDEX).is_file():
        return [WEIGHTS]
    places = _json(path / INDEX).get("weight_map")
    if not isinstance(places, dict):
        raise _damaged(path / INDEX, "it has no weight_map")
    return sorted(set(places.values()))


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(found, dict):
        raise _damaged(path, "it is no JSON object")
    return found


def _damaged(path: Path, why: str) -> ModelError:
    return ModelError(f"{path} cannot be read: {why}.", fix="Compile the model again.")
