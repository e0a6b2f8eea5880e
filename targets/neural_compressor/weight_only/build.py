"""From a Hugging Face model to a folder of INT4 weights that was loaded again and compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from edgeq.calibration.random_inputs import random_samples
from edgeq.calibration.types import Arrays, TensorSpec
from edgeq.compiler.load.hugging_face import float_module
from edgeq.compiler.model import Model
from edgeq.compiler.plan import Plan
from edgeq.errors import TargetError
from edgeq.targets.base import BuildJob, BuildResult
from edgeq.targets.checks import refuse_failed
from edgeq.targets.neural_compressor.autotune import Judge, Trial, Tuned, judge, refuse_missed
from edgeq.targets.neural_compressor.capabilities import CAPABILITIES
from edgeq.targets.neural_compressor.files import EXPECTED
from edgeq.targets.neural_compressor.inc import require_methods_quietly
from edgeq.targets.neural_compressor.options import NeuralCompressorOptions
from edgeq.targets.neural_compressor.settings import Port
from edgeq.targets.neural_compressor.weight_only.compute import outputs_of
from edgeq.targets.neural_compressor.weight_only.layers import Layer, layers_of, plan_layers
from edgeq.targets.neural_compressor.weight_only.prove import prove_again
from edgeq.targets.neural_compressor.weight_only.quantize import quantize_layers, refuse_unready
from edgeq.targets.neural_compressor.weight_only.runner import WeightOnlyRunner
from edgeq.targets.neural_compressor.weight_only.settings import WeightSettings
from edgeq.targets.neural_compressor.weight_only.tune import tune_weights
from edgeq.targets.neural_compressor.weight_only.write import halve_rest, write_folder
from edgeq.targets.reference import SAMPLES, save_samples

PROVED_BY = "PyTorch, from the folder as it ships"
_EXPANDED = (
    "The INT4 weights are expanded to float32 when the model loads: the file is small, arithmetic and memory "
    "while it runs are those of float32."
)


def build_weights(job: BuildJob, folder: Path) -> BuildResult:
    """Quantize the weights of a Hugging Face model, write them, and run what was written.

    Raises:
        DataError: the method needs calibration data, or cannot use what was given.
        UsageError: an override matches no layer.
        TargetError: the source is no Hugging Face folder, or Neural Compressor cannot quantize it.
    """
    options = cast(NeuralCompressorOptions, job.options)
    model = _source(job)
    require_methods_quietly()
    quantized = _tuned(job, model, options) if options.autotune is not None else _rounded(job, model, options)
    module, plan, block = quantized.module, quantized.plan, quantized.block
    wide = halve_rest(module)
    samples, sampled_from = (job.samples, job.sampled_from) if job.samples else random_samples(model.inputs)
    place, symmetric = Path(model.source.location), job.recipe.symmetric_weights
    files = write_folder(module, place, block, symmetric, quantized.biased, folder)
    settings = WeightSettings(
        version=version("neural-compressor"),
        scheme=job.recipe.scheme,
        sampled_from=sampled_from,
        options=options,
        architecture=type(module).__name__,
        block_size=block,
        inputs=tuple(Port.of(spec) for spec in model.inputs),
        outputs=tuple(Port.of(spec) for spec in model.outputs),
    )
    evidence = _save_evidence(module, samples, model.outputs, folder)
    files = (*files, settings.write(folder))
    with job.progress.task("Verifying the folder"):
        checks = tuple(prove_again(folder, job.threads))
    refuse_failed(checks, "folder of INT4 weights", "--scheme fp32")
    if quantized.judge is not None and quantized.tuned is not None:
        plan.notes.append(_judge_folder(folder, quantized.judge, quantized.tuned, job.threads))
    return BuildResult(files, _load_hints(settings), _notes(wide), evidence, checks, PROVED_BY, plan)


@dataclass(frozen=True)
class _Quantized:
    """``biased``: names of layers with a bias. ``judge`` and ``tuned``: of ``autotune``."""

    module: Any
    plan: Plan
    block: int
    biased: frozenset[str]
    judge: Judge | None = None
    tuned: Tuned | None = None


def _rounded(job: BuildJob, model: Model, options: NeuralCompressorOptions) -> _Quantized:
    refuse_unready(options.method, job.calibration)
    block = CAPABILITIES.blocks_of(job.recipe)
    module = float_module(model.source)
    layers = layers_of(module)
    plan = plan_layers(layers, job.recipe, block)
    found = quantize_layers(module, plan, job.recipe, block, options.method, job.calibration, job.progress)
    return _Quantized(found, plan, block, _biased(layers))


def _tuned(job: BuildJob, model: Model, options: NeuralCompressorOptions) -> _Quantized:
    judged = judge(job.evaluation, model.outputs, options.autotune_metric, options.autotune or 0.0)
    module = float_module(model.source)
    biased = _biased(layers_of(module))
    found = tune_weights(module, job.recipe, judged, model.outputs, job.calibration, job.progress)
    return _Quantized(found.module, found.plan, found.block, biased, judged, found.tuned)


def _biased(layers: Sequence[Layer]) -> frozenset[str]:
    return frozenset(layer.name for layer in layers if getattr(layer.module, "bias", None) is not None)


def _judge_folder(folder: Path, judged: Judge, tuned: Tuned, threads: int | None) -> str:
    """Measure the written folder as ``autotune``'s models were; raises TargetError when it misses."""
    with WeightOnlyRunner(folder, threads=threads) as runner:
        value = judged.measure(runner.run)
    refuse_missed(judged, tuned, value)
    return f"autotune: {judged.describe(Trial('the folder as it ships', value), tuned.baseline)}."


def _source(job: BuildJob) -> Model:
    model = job.original
    if model is not None and model.source.kind == "hf":
        return model
    where = "the model" if model is None else model.source.location
    raise TargetError(
        f"Scheme 'int4-weight' of target 'neural-compressor' needs a Hugging Face folder; {where} is none.",
        fix="Give a Hugging Face folder, or take --target openvino or onnxruntime.",
    )


def _save_evidence(
    module: Any, samples: Sequence[Arrays], outputs: Sequence[TensorSpec], folder: Path
) -> tuple[str, ...]:
    """What Neural Compressor's model computes in memory, and on what."""
    names = [spec.name for spec in outputs]
    expected = [outputs_of(module, sample, names) for sample in samples]
    return save_samples(samples, folder, SAMPLES), save_samples(expected, folder, EXPECTED)


def _load_hints(settings: WeightSettings) -> dict[str, Any]:
    return {
        "format": "Hugging Face folder, GPTQ checkpoint (int32 qweight and qzeros, float16 scales, g_idx)",
        "architecture": settings.architecture,
        "group_size": settings.block_size,
        "arithmetic": "float32, weights expanded when the model loads",
    }


def _notes(wide: int) -> tuple[str, ...]:
    notes = [_EXPANDED]
    if wide:
        notes.append(f"{wide} weights are out of float16's range and stored in float32.")
    return tuple(notes)
