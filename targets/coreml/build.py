"""From the quantized ONNX model to a package that was proved against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx_ir as ir

from edgeq.calibration.random_inputs import random_inputs
from edgeq.calibration.types import Arrays
from edgeq.compiler.model import Model
from edgeq.compiler.plan import Plan, QuantSpec
from edgeq.targets.base import BuildJob, BuildResult
from edgeq.targets.checks import refuse_failed
from edgeq.targets.coreml.dynamic import resolve_dimensions
from edgeq.targets.coreml.files import PACKAGE
from edgeq.targets.coreml.frontend.lower import lower
from edgeq.targets.coreml.frontend.signature import ImagePort, Port, Signature
from edgeq.targets.coreml.options import Arithmetic, CoreMLOptions
from edgeq.targets.coreml.package.write import write_package
from edgeq.targets.coreml.ports import with_random_images
from edgeq.targets.coreml.runner import KIND
from edgeq.targets.coreml.settings import Settings
from edgeq.targets.coreml.verification.prove import prove
from edgeq.targets.dimensions import Dimension
from edgeq.targets.reference import save_evidence

RANDOM_SAMPLES = 2
# The largest size of a dynamic dimension in random samples: attention takes its square in memory.
MOST_RANDOM = 128


def build(job: BuildJob, folder: Path) -> BuildResult:
    """Write the package, the reference model and the samples into ``folder``, and prove the package.

    Raises:
        ConfigError: an option names what the model does not have.
        TargetError: Core ML cannot express the model, or the package does not compute what it should.
    """
    settings, notes = _settings(job)
    model = job.model.without_metadata()
    with job.progress.task("Converting to Core ML"):
        reference, more = write(model, settings, folder / PACKAGE)
    samples = job.samples or _random_samples(model, settings.options)
    evidence = (*save_evidence(reference, samples, folder), settings.write(folder))
    with job.progress.task("Verifying the package"):
        checks = tuple(prove(folder))
    refuse_failed(checks, "Core ML package", "-O arithmetic=float32")
    hints = {
        "model": PACKAGE,
        "deployment_target": f"iOS{settings.ios} (macOS{settings.ios - 3})",
        "compute_units": settings.options.compute_units,
        "arithmetic": settings.arithmetic,
    }
    shipped = tuple(
        path.relative_to(folder).as_posix()
        for path in sorted((folder / PACKAGE).rglob("*"))
        if path.is_file()
    )
    return BuildResult(shipped, hints, (*notes, *more), evidence, checks, KIND)


def _settings(job: BuildJob) -> tuple[Settings, tuple[str, ...]]:
    options = cast(CoreMLOptions, job.options)
    dimensions, notes = resolve_dimensions(job.model, options.dimensions)
    scheme = job.recipe.scheme
    settings = Settings(
        ios=options.ios(scheme),
        arithmetic=options.arithmetic_of(scheme),
        options=options.model_copy(update={"dimensions": dimensions}),
        scheme=scheme,
        source_sha256=job.model.source.sha256,
        recipe=job.recipe.model_dump(mode="json"),
        sampled_from=job.sampled_from or f"{RANDOM_SAMPLES} random inputs",
        # only this scheme plans float precisions node by node; the others leave them to the arithmetic
        float32_nodes=tuple(n.name for n in job.plan.nodes.values() if n.precision == "fp32")
        if scheme == "fp16"
        else (),
        palettes={
            name: spec.dtype for name, spec in job.plan.weights.items() if spec.dtype.startswith("pal")
        },
    )
    return settings, notes


def write(
    model: Model, settings: Settings, path: Path, arithmetic: Arithmetic | None = None
) -> tuple[Model, tuple[str, ...]]:
    """Lower ``model`` and write its package to ``path``: the same arguments give the same bytes.

    Returns the model whose numbers the package has (palettized weights are other ones), and notes.

    Raises:
        TargetError: Core ML cannot express the model.
    """
    lowered = lower(
        model,
        ios=settings.ios,
        dimensions=settings.options.dimensions,
        float32_nodes=settings.float32_nodes,
    )
    write_package(
        replace(lowered, signature=_with_images(lowered.signature, settings.options)),
        path,
        ios=settings.ios,
        arithmetic=arithmetic or settings.arithmetic,
        options=settings.options,
        source_sha256=settings.source_sha256,
        recipe=settings.recipe,
    )
    return _palettize(model, settings, path)


def _with_images(signature: Signature, options: CoreMLOptions) -> Signature:
    """The signature with what turns the ONNX model's floats back into pixels."""
    images = _images(options)
    ports: tuple[Port, ...] = tuple(replace(p, image=images.get(p.name)) for p in signature.inputs)
    return replace(signature, inputs=ports)


def _images(options: CoreMLOptions) -> dict[str, ImagePort]:
    return {image.name: ImagePort(image.scale, image.bias) for image in options.image_input}


def _palettize(model: Model, settings: Settings, path: Path) -> tuple[Model, tuple[str, ...]]:
    """Palettize the package's weights where the plan says so; the reference gets the same weights."""
    if not settings.palettes:
        return model, ()
    from edgeq.targets.coreml.package.palettize import palettize

    specs = {name: QuantSpec(cast(Any, form), symmetric=True) for name, form in settings.palettes.items()}
    weights, notes = palettize(path, model, Plan(weights=specs), settings.options)
    result = model.clone()
    for name, array in weights.items():
        numbers = np.asarray(array, np.float32)
        result.ir.graph.initializers[name].const_value = ir.tensor(numbers, name=name)
    return result, notes


def _random_samples(model: Model, options: CoreMLOptions) -> Sequence[Arrays]:
    """One sample at the sizes that the package declares, one at larger sizes where it allows them."""
    dimensions, images = options.dimensions, _images(options)
    declared = {name: size.initial for name, size in dimensions.items()}
    larger = {name: _larger(size) for name, size in dimensions.items()}
    return [
        with_random_images(random_inputs(model.inputs, seed=seed, dims=sizes), images, seed)
        for seed, sizes in enumerate((declared, larger))
    ]


def _larger(size: Dimension) -> int:
    """The largest size up to one that is proven in seconds."""
    sizes = size.choices or (max(size.initial, min(size.largest, MOST_RANDOM)),)
    return max((found for found in sizes if found <= MOST_RANDOM), default=size.initial)
