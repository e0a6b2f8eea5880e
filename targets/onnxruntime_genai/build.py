"""From quantized weights to a folder that onnxruntime-genai has generated with."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import onnx_ir as ir

from edgeq.calibration.types import Array, Arrays
from edgeq.targets.base import BuildJob, BuildResult, Check
from edgeq.targets.checks import refuse_failed
from edgeq.targets.language.prove import save_reference
from edgeq.targets.language.settings import StoredLayer
from edgeq.targets.onnxruntime_genai.architecture import read_decoder
from edgeq.targets.onnxruntime_genai.configuration import write_configuration
from edgeq.targets.onnxruntime_genai.files import DATA_FILE, MODEL_FILE
from edgeq.targets.onnxruntime_genai.gate import BOUND, Difference, difference
from edgeq.targets.onnxruntime_genai.graph import decoder_model
from edgeq.targets.onnxruntime_genai.prove import prove
from edgeq.targets.onnxruntime_genai.runner import GenaiRunner
from edgeq.targets.onnxruntime_genai.settings import GenaiSettings
from edgeq.targets.onnxruntime_genai.stored import StoredGraph
from edgeq.targets.onnxruntime_genai.tensors import StoredTensors

PACKAGES = ("onnxruntime", "onnxruntime-genai")
_PROVED_BY = "ONNX Runtime and onnxruntime-genai"
# Constants of fewer bytes are in the graph itself.
_INLINE = 1024
# Beside the graph of level 0, while both are compared.
_LEVEL_4_FILE = "level4.onnx"


def build(job: BuildJob, folder: Path) -> BuildResult:
    """Write the folder, run it, and compare what it computes.

    Raises:
        TargetError: there is no graph for the model, or what was written does not verify.
        ModelError: the checkpoint's configuration and tensors do not fit.
    """
    store = job.weights
    assert store is not None
    decoder = read_decoder(store.checkpoint)
    tensors = StoredTensors(store, full=job.recipe.scheme == "fp32")
    with job.progress.task("Writing the graph"):
        model = decoder_model(decoder, tensors)
        ir.save(model, folder / MODEL_FILE, external_data=DATA_FILE, size_threshold_bytes=_INLINE)
        files = (MODEL_FILE, DATA_FILE, *write_configuration(store.checkpoint, decoder, folder))
    level, gate, notes = _accuracy_level(job, folder)
    with job.progress.task("Computing the reference"):
        evidence, sampled_from = save_reference(job, None, tensors.values, folder)
    settings = GenaiSettings(
        versions={package: version(package) for package in PACKAGES},
        sampled_from=sampled_from,
        accuracy_level=level,
        layers={name: StoredLayer.of(store.quantized(name)) for name in store.layers},
    )
    evidence = (*evidence, settings.write(folder))
    with job.progress.task("Verifying the folder"):
        checks = (*gate, *prove(folder, job.threads))
    refuse_failed(checks, "ONNX Runtime GenAI folder", "", fix="Compile it again, or as gguf or hf-gptq.")
    hints = {"model": MODEL_FILE, "engine": "onnxruntime-genai", "accuracy_level": level}
    notes = (*notes, *_slow_layers(settings))
    return BuildResult(files, hints, notes, evidence, checks, _PROVED_BY)


def _slow_layers(settings: GenaiSettings) -> tuple[str, ...]:
    count = sum(layer.bits == 8 for layer in settings.layers.values())
    if not count or settings.accuracy_level == 4:
        return ()
    return (
        f"{count} layers of 8 bits at accuracy level 0, for which ONNX Runtime has no fast kernel: "
        "generation is many times slower than at level 4 (--accuracy-level 4).",
    )


def _accuracy_level(job: BuildJob, folder: Path) -> tuple[int, tuple[Check, ...], tuple[str, ...]]:
    """The level that the graph in ``folder`` has now, what was measured of it, and what users should know."""
    if job.recipe.accuracy_level == 0:
        return 0, (), ()
    with job.progress.task("Judging accuracy level 4"):
        found = _compare_levels(job, folder)
    if not found.allowed:
        (folder / _LEVEL_4_FILE).unlink()
        return 0, (), (f"Accuracy level 0 in place of 4: {found}; allowed is {BOUND}.",)
    (folder / _LEVEL_4_FILE).replace(folder / MODEL_FILE)
    return 4, (Check("accuracy level 4", True, f"{found} on {job.sampled_from}", BOUND),), ()


def _compare_levels(job: BuildJob, folder: Path) -> Difference:
    """Run the samples with both levels; the graph of level 4 is in ``_LEVEL_4_FILE`` then."""
    graph = StoredGraph(folder)
    graph.set_accuracy_level(4)
    ir.save(graph.model, folder / _LEVEL_4_FILE)
    exact = GenaiRunner(folder, threads=job.threads)
    rounded = GenaiRunner(folder, threads=job.threads, model=_LEVEL_4_FILE)
    try:
        return difference(_pairs(exact, rounded, job.samples))
    finally:
        exact.close()
        rounded.close()


def _pairs(
    exact: GenaiRunner, rounded: GenaiRunner, samples: tuple[Arrays, ...]
) -> Iterator[tuple[Array, Array]]:
    for sample in samples:
        yield exact.run(sample)["logits"], rounded.run(sample)["logits"]
