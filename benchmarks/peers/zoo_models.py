"""The zoo of the shared data folder: trained graphs without data, and the sizes that they need."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from labelled import DATA

from edgeq.calibration.random_inputs import random_inputs
from edgeq.compiler.load import load
from edgeq.targets.dimensions import parse_dimension

ZOO = DATA / "zoo"
# Dynamic dimensions besides the batch, which is 1, as users write them.
DIMENSIONS: Mapping[str, Mapping[str, str]] = {
    "charrnn_shakespeare_ts14": {"T": "1..64"},
    "ppocr_v2_det": {"p2o.DynamicDimension.1": "160,320", "p2o.DynamicDimension.2": "160,320"},
    "silero_vad_op15": {"sequence": "512"},
}
# Audio rate is an input of the voice detector.
VALUES = {"silero_vad_op15": {"sr": np.array(16000)}}
SAMPLES = 8


def zoo_models(wanted: str = "") -> list[Path]:
    """The zoo's files, or those of the comma-separated names in ``wanted``."""
    names = {name for name in wanted.split(",") if name}
    files = sorted(ZOO.glob("*.onnx"))
    return [path for path in files if not names or path.stem in names]


def with_character_model(wanted: str = "") -> list[Path]:
    """The zoo and the recurrent character model."""
    path = DATA / "models" / "charrnn_shakespeare_ts14.onnx"
    chosen = not wanted or path.stem in wanted.split(",")
    return [*zoo_models(wanted), *([path] if chosen else [])]


def target_options(path: Path) -> dict[str, str]:
    """The sizes as a target's options."""
    return {f"dimension.{name}": text for name, text in DIMENSIONS.get(path.stem, {}).items()}


def random_samples(path: Path) -> list[dict[str, np.ndarray[Any, Any]]]:
    """Random samples with batch 1 that the model accepts."""
    specs, values = load(path).inputs, VALUES.get(path.stem, {})
    given = DIMENSIONS.get(path.stem, {})
    dims = {name: parse_dimension(name, text).initial for name, text in given.items()}
    return [{**random_inputs(specs, seed=seed, dims=dims), **values} for seed in range(SAMPLES)]
