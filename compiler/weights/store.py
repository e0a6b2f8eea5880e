"""Quantized weights on disk, unit by unit: what formats are written from, and where a killed run goes on.

A unit is a decoder layer, or the model's head: it is written whole or not at all. Codes are stored a byte
each, so that formats can pack them as they like.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.compiler.load.checkpoint import Checkpoint, StoredTensor, read_safetensors
from edgeq.compiler.weights.spec import Floats, QuantizedWeight, WeightSpec

_CODES, _SCALES, _ZERO_POINTS = ".codes", ".scales", ".zero_points"


class WeightStore:
    """The weights of ``checkpoint`` as a recipe quantized them.

    Names are those of layers (``model.layers.0.self_attn.q_proj``); tensors keep the checkpoint's names.
    """

    def __init__(self, folder: Path, checkpoint: Checkpoint) -> None:
        """Open ``folder``, which is created when it is missing; finished units in it count."""
        self.folder = folder
        self.checkpoint = checkpoint
        self.records: dict[str, dict[str, Any]] = {}
        self._specs: dict[str, WeightSpec] = {}
        self._tensors: dict[str, StoredTensor] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("*.json")):
            self._add(path.stem, json.loads(path.read_text(encoding="utf-8")))

    @property
    def layers(self) -> list[str]:
        """The quantized layers, in the order of the checkpoint's tensors."""
        return [name for name in self._linear_names() if name in self._specs]

    def has(self, unit: str) -> bool:
        """Whether ``unit`` is finished."""
        return unit in self.records

    def write(
        self,
        unit: str,
        weights: Mapping[str, QuantizedWeight],
        rewritten: Mapping[str, Array],
        record: Mapping[str, Any],
    ) -> None:
        """Finish ``unit``: quantized layers, tensors that replace the checkpoint's, and what is to be told.

        ``record`` holds JSON values; ``record["layers"][name]`` is what is known of a layer (errors, notes).
        """
        tensors = {name: np.ascontiguousarray(value) for name, value in rewritten.items()}
        for name, weight in weights.items():
            tensors[name + _CODES] = weight.codes
            tensors[name + _SCALES] = weight.scales
            if weight.zero_points is not None:
                tensors[name + _ZERO_POINTS] = weight.zero_points
        content = {**record, "specs": {name: asdict(weight.spec) for name, weight in weights.items()}}
        data = self.folder / f"{unit}.safetensors"
        scratch = data.with_suffix(".partial")
        save_tensors(tensors, scratch)
        scratch.replace(data)
        scratch.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        # The record comes last: a unit without one is not finished.
        scratch.replace(data.with_suffix(".json"))
        self._add(unit, content)

    def spec(self, layer: str) -> WeightSpec | None:
        """How ``layer`` is quantized, None where it stays float."""
        return self._specs.get(layer)

    def quantized(self, layer: str) -> QuantizedWeight:
        """The weights of a quantized layer."""
        zeros = self._tensors.get(layer + _ZERO_POINTS)
        return QuantizedWeight(
            self._specs[layer],
            self._tensors[layer + _CODES].array(),
            self._tensors[layer + _SCALES].array(),
            None if zeros is None else zeros.array(),
        )

    def tensor(self, name: str) -> Array:
        """A tensor that is not quantized: the checkpoint's, or what replaced it (float32)."""
        found = self._tensors.get(name)
        return self.checkpoint.read(name) if found is None else found.array()

    def float32(self, name: str) -> Floats:
        """The values of any of the checkpoint's tensors as the artefact has them."""
        layer = name.removesuffix(".weight")
        if layer != name and layer in self._specs:
            return self.quantized(layer).dequantize()
        return self.tensor(name).astype(np.float32)

    def remove(self) -> None:
        """Delete the folder, and the one around it when nothing else is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self.folder.parent.rmdir()

    def clear(self) -> None:
        """Forget every unit."""
        empty(self.folder)
        for known in (self.records, self._specs, self._tensors):
            known.clear()

    def _add(self, unit: str, content: dict[str, Any]) -> None:
        self.records[unit] = content
        self._specs.update({name: WeightSpec(**spec) for name, spec in content["specs"].items()})
        self._tensors.update(read_safetensors(self.folder / f"{unit}.safetensors"))

    def _linear_names(self) -> list[str]:
        return [name.removesuffix(".weight") for name in self.checkpoint.tensors if name.endswith(".weight")]


def save_tensors(tensors: Mapping[str, Array], path: Path) -> None:
    """Write a safetensors file; raises OSError, of a full disk too, which the library hides in its own."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error


def empty(folder: Path) -> None:
    """Delete what is in ``folder``, and leave the folder itself, which may be locked."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
