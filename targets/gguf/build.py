"""From a checkpoint and its quantized weights to a GGUF file that was read again and compared."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Arrays
from edgeq.errors import DataError
from edgeq.targets.base import BuildJob, BuildResult
from edgeq.targets.checks import refuse_failed
from edgeq.targets.gguf.contents import FloatWeights, Weights
from edgeq.targets.gguf.convert import Conversion
from edgeq.targets.gguf.files import CONFIG, MODEL, TOKENIZER
from edgeq.targets.gguf.floats import overridden
from edgeq.targets.gguf.importance import collect_importance
from edgeq.targets.gguf.llama import is_installed
from edgeq.targets.gguf.options import GgufOptions
from edgeq.targets.gguf.prove import exact_weights, prove
from edgeq.targets.gguf.read import GgufFile
from edgeq.targets.gguf.requantize import requantize
from edgeq.targets.gguf.settings import Settings, StoredPlace
from edgeq.targets.gguf.types import FILE_TYPES, FileType
from edgeq.targets.reference import save_samples

# Tokens of each sample that the engine and the reference are compared on.
_TOKENS = 64
_RANDOM_SAMPLES = 2


def build_file(job: BuildJob, folder: Path) -> BuildResult:
    """Write ``model.gguf`` and what proves it.

    Raises:
        TargetError: llama.cpp has no such model, tokenizer or type, or what was written does not verify.
        DataError: the type needs calibration text and there is none.
    """
    options: GgufOptions = job.options
    assert job.original is not None
    source = Path(job.original.source.location)
    file_type = options.file_type
    conversion, notes = Conversion.of(source).with_pre_tokenizer()
    weights: Weights = FloatWeights(conversion.checkpoint) if job.weights is None else job.weights
    others = overridden(file_type, job.plan.nodes) if file_type.maker != "codes" else {}
    path = folder / MODEL
    notes += conversion.notes()
    if file_type.maker == "llama.cpp":
        notes += _through_llama(job, conversion, file_type, others, path)
    else:
        conversion.write(path, weights, file_type, others, job.progress)
    samples, sampled_from = _samples(job, conversion.config["vocab_size"])
    settings = Settings(
        version=version("gguf"),
        scheme=job.recipe.scheme,
        file_type=file_type.name,
        architecture=conversion.checkpoint.architecture,
        sampled_from=sampled_from,
        tokenizer=conversion.vocabulary.kind,
        tensors=tuple(StoredPlace.of(place) for place in conversion.places),
    )
    evidence = (settings.write(folder), *_companions(source, folder), save_samples(samples, folder))
    with job.progress.task("Verifying the file"):
        exact = exact_weights(folder, weights, settings)
        checks = (*exact, *prove(folder, job.threads))
    refuse_failed(checks, "GGUF file", "", fix=_remedy(file_type))
    found = GgufFile(path).types
    return BuildResult((MODEL,), _hints(conversion, found), tuple(notes), evidence, checks, _proved_by())


def _remedy(file_type: FileType) -> str:
    """What to do where the file's numbers are not its values'."""
    if file_type.name == "f32":
        return "Report it: no option of yours mends it."
    return (
        "llama.cpp rounds activations to 8 or 16 bits, and these are too large or too uneven for that: take "
        "--scheme fp32, or --target hf-gptq or vllm."
    )


def _through_llama(
    job: BuildJob, conversion: Conversion, file_type: FileType, others: Mapping[str, str], path: Path
) -> list[str]:
    """Write the floats to a temporary file, which llama.cpp rounds; notes on what it has rounded with."""
    if file_type.importance and job.calibration is None:
        raise DataError(
            f"The type {file_type.name!r} needs an importance matrix, which calibration text gives.",
            fix="Give representative text with --calibration.",
        )
    names = {place.layer: place.name for place in conversion.places if place.source != place.layer}
    importance = {}
    notes = [f"{file_type.name}: rounded without an importance matrix (no calibration text was given)."]
    if job.calibration is not None:
        windows = job.recipe.calibration_samples
        found = collect_importance(conversion.checkpoint, job.calibration, windows, job.progress)
        importance = {names[layer]: values for layer, values in found.items() if layer in names}
        notes = [f"{file_type.name}: the importance matrix is of the calibration text."]
    types = {names[layer]: kind for layer, kind in others.items() if layer in names}
    with tempfile.TemporaryDirectory(prefix=".gguf-", dir=path.parent) as scratch:
        floats = Path(scratch) / "floats.gguf"
        # The checkpoint's own type where it has one, else what holds everything.
        kind = _own_floats(conversion)
        conversion.write(floats, FloatWeights(conversion.checkpoint), kind, {}, job.progress)
        with job.progress.task(f"Quantizing to {file_type.name}"):
            requantize(floats, path, file_type, importance, types, threads=job.threads)
    return notes


def _own_floats(conversion: Conversion) -> FileType:
    kinds = {str(tensor.dtype) for tensor in conversion.checkpoint.tensors.values() if len(tensor.shape) > 1}
    return FILE_TYPES[
        {"float16": "f16", "bfloat16": "bf16"}.get(kinds.pop() if len(kinds) == 1 else "", "f32")
    ]


def _samples(job: BuildJob, vocabulary: int) -> tuple[list[Arrays], str]:
    """Token ids to compare numbers on: the beginning of the data's samples, else random ones."""
    if job.samples:
        found = [{"input_ids": np.ascontiguousarray(s["input_ids"][:, :_TOKENS])} for s in job.samples]
        return list(found), job.sampled_from
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, vocabulary, (1, _TOKENS), dtype=np.int64) for _ in range(_RANDOM_SAMPLES)]
    return [{"input_ids": one} for one in ids], f"{_RANDOM_SAMPLES} samples of random tokens"


def _companions(source: Path, folder: Path) -> tuple[str, ...]:
    """Copy what the reference and its tokenizer are made of."""
    names = tuple(name for name in (CONFIG, TOKENIZER) if (source / name).is_file())
    for name in names:
        shutil.copyfile(source / name, folder / name)
    return names


def _hints(conversion: Conversion, types: Mapping[str, str]) -> dict[str, Any]:
    return {
        "format": "GGUF",
        "architecture": conversion.architecture.name,
        "tensors": dict(sorted(Counter(types.values()).items())),
        "load": "llama-cli -m model.gguf, or llama_cpp.Llama(model_path='model.gguf')",
    }


def _proved_by() -> str:
    if is_installed():
        return f"llama.cpp (llama-cpp-python {version('llama-cpp-python')}), from the file as it ships"
    return "the gguf package's reader; llama-cpp-python is not installed"
