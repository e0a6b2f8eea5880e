"""What is checked of a written GGUF file: its values, its tokenizer, and what llama.cpp computes with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeq.calibration.types import Arrays
from edgeq.compiler.weights.spec import Floats
from edgeq.targets.base import Check
from edgeq.targets.gguf.contents import Weights
from edgeq.targets.gguf.files import MODEL
from edgeq.targets.gguf.llama import is_installed
from edgeq.targets.gguf.read import GgufFile, open_reference
from edgeq.targets.gguf.runner import LlamaRunner
from edgeq.targets.gguf.settings import Settings
from edgeq.targets.gguf.tokens import tokens_check
from edgeq.targets.numbers import FLOAT16_SQNR, FLOAT16_SQNR_ROUNDED, FLOAT32_SQNR, distance
from edgeq.targets.reference import load_samples

# float16 and bfloat16 weights are multiplied with activations of that type; blocks with 8-bit ones.
_LIMITS = {"f32": FLOAT32_SQNR, "f16": FLOAT16_SQNR, "bf16": 30.0}
# ggml looks GELU, which Gemma's models have, up in a table of float16.
_GELU_SQNR = 60.0


def exact_weights(folder: Path, weights: Weights, settings: Settings) -> list[Check]:
    """Whether every quantized tensor dequantizes to exactly the values that the method has chosen."""
    file = GgufFile(folder / MODEL)
    other, count = [], 0
    for stored in settings.tensors:
        place = stored.place
        if place.source == place.layer or weights.spec(place.layer) is None:
            continue
        count += 1
        wanted: Floats = place.to_file(weights.quantized(place.layer).dequantize())
        if not np.array_equal(file.float32(place.name), wanted):
            other.append(place.name)
    if not count:
        return []
    text = f"{other[0]} has other values" if other else f"{count} tensors, every value the same"
    return [Check("weights", not other, text, "the values of the method's codes, bit for bit")]


def prove(folder: Path, threads: int | None) -> list[Check]:
    """Run the file and its values in float32 on the samples, and compare; compare the tokenizers.

    Raises:
        ModelError: the artefact is damaged.
        TargetError: llama.cpp fails.
    """
    if not is_installed():
        return [_readable(folder)]
    settings = Settings.read(folder)
    return [*tokens_check(folder, settings), *_numbers(folder, settings, threads)]


def _readable(folder: Path) -> Check:
    settings, file = Settings.read(folder), GgufFile(folder / MODEL)
    missing = [one.name for one in settings.tensors if one.name not in file.tensors]
    wrong = missing or [
        one.name
        for one in settings.tensors
        if tuple(int(size) for size in file.tensors[one.name].shape[::-1]) != one.shape
    ]
    text = f"{wrong[0]} is missing or has another shape" if wrong else f"{len(settings.tensors)} tensors"
    return Check("tensors", not wrong, text, "every tensor of the model, in its shape")


def _numbers(folder: Path, settings: Settings, threads: int | None) -> list[Check]:
    limit = _LIMITS.get(settings.file_type, FLOAT16_SQNR_ROUNDED)
    if settings.architecture.startswith("Gemma"):
        limit = min(limit, _GELU_SQNR)
    wanted = f"at least {limit:.0f} dB to the file's values in PyTorch"
    samples = load_samples(folder)
    reference = open_reference(folder, threads=threads, streamed=True)
    expected = [reference.run(sample) for sample in samples]
    found = distance(expected, _outputs(folder, samples, threads))
    text = f"{found.sqnr:.1f} dB on {settings.sampled_from}" if not found.wrong else "logits are not finite"
    return [Check("numbers", not found.wrong and found.sqnr >= limit, text, wanted)]


def _outputs(folder: Path, samples: Sequence[Arrays], threads: int | None) -> list[Arrays]:
    runner = LlamaRunner(folder / MODEL, threads=threads or 1, exact_cache=True)
    try:
        return [runner.run(sample) for sample in samples]
    finally:
        runner.close()
