"""What is checked of an artefact with fused kernels: its numbers are those of the model before the fusions.

Both run as applications run them, so that the fusions alone are judged, not what integer kernels make of a
CPU. Of the model before, inputs and results are kept: the model itself would double the artefact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeq.calibration.random_inputs import random_samples
from edgeq.calibration.types import Arrays
from edgeq.compiler.model import Model, save
from edgeq.compiler.recipe import Recipe
from edgeq.targets.base import BuildJob, Check
from edgeq.targets.numbers import distance, exact_check, half_check, reordered_sums, rounded_check
from edgeq.targets.onnxruntime.files import EXPECTED, MODEL_FILE, SETTINGS
from edgeq.targets.onnxruntime.runner import OnnxRuntimeRunner
from edgeq.targets.onnxruntime.settings import Settings
from edgeq.targets.reference import load_samples, save_samples

_REFERENCE = "the model before the fusions"
# Inputs and results in bytes, from which on no more samples are taken.
_MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class Expected:
    """What a model computes of each of ``samples``; ``sampled_from`` says whose they are."""

    samples: tuple[Arrays, ...]
    results: tuple[Arrays, ...]
    sampled_from: str


def expect(model: Model, job: BuildJob, folder: Path) -> Expected:
    """Run the quantized ``model`` on the job's samples, random ones where there are none.

    What is too large for memory is written to ``folder`` meanwhile.

    Raises:
        DataError: the model has inputs that cannot be made up.
        TargetError: ONNX Runtime cannot load or run the model.
    """
    samples, sampled_from = (job.samples, job.sampled_from) if job.samples else random_samples(model.inputs)
    results: list[Arrays] = []
    with TemporaryDirectory(prefix="edgeq-", dir=folder) as temporary:
        path = Path(temporary) / MODEL_FILE
        save(model, path)
        with OnnxRuntimeRunner(path, threads=job.threads) as runner:
            for sample in samples:
                results.append(runner.run(sample))
                if _bytes(samples[: len(results)]) + _bytes(results) > _MOST_BYTES:
                    break
    if len(results) < len(samples):
        sampled_from = f"{len(results)} of {sampled_from}"
    return Expected(samples[: len(results)], tuple(results), sampled_from)


def _bytes(many: Sequence[Arrays]) -> int:
    return sum(array.nbytes for arrays in many for array in arrays.values())


def save_evidence(expected: Expected, recipe: Recipe, folder: Path) -> tuple[str, ...]:
    """Write what :func:`prove` reads; returns the names of the files."""
    import onnxruntime as ort

    settings = Settings(
        version=ort.__version__,
        sampled_from=expected.sampled_from,
        rounded=recipe.scheme in ("int8-static", "int8-dynamic") or recipe.accuracy_level == 4,
        half=recipe.scheme == "fp16",
    )
    return (
        save_samples(expected.samples, folder),
        save_samples(expected.results, folder, EXPECTED),
        settings.write(folder),
    )


def prove(folder: Path, threads: int | None) -> list[Check]:
    """Whether ONNX Runtime loads the model in ``folder`` and, with fused kernels, what it computes.

    Raises:
        ModelError: the evidence is damaged.
        TargetError: ONNX Runtime cannot load or run the model.
    """
    with OnnxRuntimeRunner(folder / MODEL_FILE, threads=threads) as runner:
        loads = Check("loads", True, "ONNX Runtime loads it", "a model that loads")
        if not (folder / SETTINGS).is_file():
            return [loads]
        got = [runner.run(sample) for sample in load_samples(folder)]
    return [loads, _numbers(load_samples(folder, EXPECTED), got, Settings.read(folder))]


def _numbers(wanted: Sequence[Arrays], got: Sequence[Arrays], settings: Settings) -> Check:
    found = distance(wanted, got, floats_only=settings.rounded or settings.half)
    if settings.rounded:
        return rounded_check(found, settings.sampled_from, _REFERENCE)
    if settings.half:
        return half_check(found, settings.sampled_from, rounded=False)
    return exact_check(found, (reordered_sums(found), ""), settings.sampled_from, _REFERENCE)
