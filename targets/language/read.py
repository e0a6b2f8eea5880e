"""The model of an artefact's folder in float32, its quantized layers read by the format's own reader."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.compiler.weights.spec import WeightSpec
from edgeq.targets.language.format import Format, Shape
from edgeq.targets.language.model import ReadTensor, build_model
from edgeq.targets.language.runner import LanguageRunner
from edgeq.targets.language.settings import LanguageSettings
from edgeq.targets.language.stored import StoredFolder
from edgeq.targets.language.streamed import streamed_model


def values_of(stored: StoredFolder, form: Format, settings: LanguageSettings) -> tuple[list[str], ReadTensor]:
    """Names of the model's tensors, and what reads one in float32."""
    shapes = layer_shapes(settings)
    packed = {
        f"{layer}.{part}" for layer, (spec, shape) in shapes.items() for part in form.parts(spec, shape)
    }
    names = [name for name in stored.tensors if name not in packed]
    layers = {f"{layer}.weight": layer for layer in shapes}

    def read(name: str) -> Array:
        if name not in layers:
            return stored.array(name).astype(np.float32)
        spec, shape = shapes[layers[name]]
        return form.read(stored, layers[name], spec, shape)

    return [*names, *layers], read


def layer_shapes(settings: LanguageSettings) -> dict[str, tuple[WeightSpec, Shape]]:
    """Spec and shape of every quantized layer."""
    floats = float_type(settings.dtype)
    return {
        name: (layer.spec, Shape(layer.outputs, layer.inputs, floats))
        for name, layer in settings.layers.items()
    }


def float_type(name: str) -> np.dtype[Any]:
    """``float16`` or ``bfloat16`` as numpy has it."""
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else np.float16)


def open_runner(folder: Path, form: Format, threads: int | None, *, streamed: bool = False) -> LanguageRunner:
    """The model of ``folder`` by the format's own reader; raises ModelError.

    ``streamed``: weights are read when they are needed, every time; else all are in memory.
    """
    stored = StoredFolder(folder)
    names, read = values_of(stored, form, LanguageSettings.read(folder))
    build = streamed_model if streamed else build_model
    return LanguageRunner(build(folder, stored.architecture, names, read), threads=threads)


def float32_bytes(stored: StoredFolder, settings: LanguageSettings) -> int:
    """What the model takes with all weights in float32."""
    matrices = sum(layer.outputs * layer.inputs for layer in settings.layers.values())
    rest = (
        math.prod(t.shape) for name, t in stored.tensors.items() if _layer_of(name) not in settings.layers
    )
    return 4 * (matrices + sum(rest))


def _layer_of(tensor: str) -> str:
    return tensor.rpartition(".")[0]
