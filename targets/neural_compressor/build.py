"""From a PyTorch program to a package of machine code that was run against it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgeq.calibration.random_inputs import random_samples
from edgeq.calibration.types import Array, Arrays
from edgeq.compiler.model import Model
from edgeq.compiler.quantize.dispatch import missing_calibration
from edgeq.compiler.recipe import Scheme
from edgeq.errors import TargetError
from edgeq.quiet import quiet, reason
from edgeq.targets.base import BuildJob, BuildResult
from edgeq.targets.checks import refuse_failed
from edgeq.targets.neural_compressor.agreement import same_as_graph
from edgeq.targets.neural_compressor.calibrate import tensors
from edgeq.targets.neural_compressor.files import EXPECTED, MODEL
from edgeq.targets.neural_compressor.options import NeuralCompressorOptions
from edgeq.targets.neural_compressor.program import capture, dynamic_shapes, example_of, flat_module
from edgeq.targets.neural_compressor.quantized import QuantizedProgram
from edgeq.targets.reference import SAMPLES, save_samples

if TYPE_CHECKING:
    from torch.fx import GraphModule

PROVED_BY = "PyTorch's AOTInductor runtime"


def build(job: BuildJob, folder: Path) -> BuildResult:
    """Write the package, the samples and what the program computes of them into ``folder``, and run it.

    Raises:
        ConfigError: an option names what the model does not have.
        DataError: the calibration data cannot be used.
        TargetError: Neural Compressor or PyTorch's compiler cannot do it, or the package does not compute
            what the program does.
    """
    if job.recipe.scheme == "int4-weight":
        from edgeq.targets.neural_compressor.weight_only.build import build_weights

        result: BuildResult = build_weights(job, folder)
        return result
    return _build_package(job, job.original or job.model, folder)


def _build_package(job: BuildJob, model: Model, folder: Path) -> BuildResult:
    from edgeq.targets.neural_compressor.inc import require_quietly
    from edgeq.targets.neural_compressor.package import write_package
    from edgeq.targets.neural_compressor.prove import prove
    from edgeq.targets.neural_compressor.settings import Settings

    require_quietly()
    program = capture(model, job.progress)
    module = flat_module(program, model)
    shapes, example = dynamic_shapes(module), example_of(program, model)
    samples, sampled_from = (job.samples, job.sampled_from) if job.samples else random_samples(model.inputs)
    agrees = same_as_graph(model, samples, _run(module, model, samples), sampled_from)
    refuse_failed([agrees], "PyTorch program", "--target openvino")
    quantized = _SCHEMES[job.recipe.scheme](job, module, model)
    save_samples(samples, folder, SAMPLES)
    save_samples(_run(quantized.module, model, samples), folder, EXPECTED)
    package = write_package(
        quantized.module,
        example,
        shapes,
        model.inputs,
        model.outputs,
        folder,
        job.progress,
        names=quantized.names,
    )
    settings = Settings(
        version=version("neural-compressor"),
        scheme=job.recipe.scheme,
        sampled_from=sampled_from,
        options=cast(NeuralCompressorOptions, job.options),
        interface=package.interface,
    )
    evidence = (SAMPLES, EXPECTED, *package.evidence, settings.write(folder))
    with job.progress.task("Verifying the package"):
        checks = (agrees, *prove(folder, job.threads))
    refuse_failed(checks, "package", "--scheme fp32")
    hints = {"model": MODEL, "loader": "torch._inductor.aoti_load_package", "torch": package.interface.torch}
    return BuildResult(package.files, hints, (), evidence, checks, PROVED_BY, plan=quantized.plan)


def _static(job: BuildJob, module: GraphModule, model: Model) -> QuantizedProgram:
    from edgeq.targets.neural_compressor.static import quantize_static

    if job.calibration is None:
        raise missing_calibration(job.recipe.scheme)
    return _with_tables(quantize_static(module, model.inputs, job.recipe, job.calibration, job.progress))


def _dynamic(job: BuildJob, module: GraphModule, model: Model) -> QuantizedProgram:
    from edgeq.targets.neural_compressor.dynamic import quantize_dynamic

    with job.progress.task("Quantizing the program"):
        return _with_tables(quantize_dynamic(module, job.recipe))


def _float(job: BuildJob, module: GraphModule, model: Model) -> QuantizedProgram:
    from edgeq.targets.neural_compressor.annotate import plan_in_float

    return plan_in_float(module, job.recipe)


def _with_tables(quantized: QuantizedProgram) -> QuantizedProgram:
    from edgeq.targets.neural_compressor.embeddings import store_tables

    store_tables(quantized.module, quantized.plan, quantized.names)
    return quantized


_SCHEMES: Mapping[Scheme, Callable[[BuildJob, Any, Model], QuantizedProgram]] = {
    "fp32": _float,
    "int8-static": _static,
    "int8-dynamic": _dynamic,
}


def _run(module: GraphModule, model: Model, samples: Sequence[Arrays]) -> list[dict[str, Array]]:
    import torch

    names = [spec.name for spec in model.outputs]
    found = []
    for sample in samples:
        given = tensors(sample, model.inputs)
        try:
            with quiet(), torch.no_grad():
                results = module(*given)
        except Exception as error:
            shapes = ", ".join(str(list(tensor.shape)) for tensor in given)
            raise TargetError(
                f"The program fails on inputs of the shapes {shapes}: {reason(error)}.",
                fix="Give data that the model can take.",
            ) from error
        found.append({name: tensor.numpy() for name, tensor in zip(names, results, strict=True)})
    return found
