"""From quantized weights to a Hugging Face folder that was loaded again and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from edgeq.calibration.types import Array
from edgeq.compiler.plan import Plan
from edgeq.compiler.weights.floats import stored_floats
from edgeq.compiler.weights.spec import Floats
from edgeq.compiler.weights.store import WeightStore
from edgeq.errors import TargetError
from edgeq.targets.base import BuildJob, BuildResult
from edgeq.targets.checks import refuse_failed
from edgeq.targets.language.companions import copy_companions, write_config
from edgeq.targets.language.format import Format, QuantizedLayers, Shape
from edgeq.targets.language.prove import prove, save_reference
from edgeq.targets.language.settings import LanguageSettings, StoredLayer
from edgeq.targets.language.shards import LazyTensor, write_shards

_HEAD = "lm_head"


def build_folder(
    job: BuildJob, folder: Path, form: Format, target: str, options: Mapping[str, str]
) -> BuildResult:
    """Write the folder, read it back, and compare what it computes.

    Raises:
        TargetError: the weights do not fit the format, or what was written does not verify.
        ModelError: the checkpoint's configuration and tensors do not fit.
    """
    store = job.weights
    assert store is not None
    floats = stored_floats(store.checkpoint)
    layers = quantized_layers(store, job.plan, floats.name)
    quantization = form.quantization(layers)
    with job.progress.task("Writing the weights"):
        files = write_shards(_tensors(store, form, floats), folder)
    files = (
        *files,
        write_config(store.checkpoint.config, floats.name, quantization, folder),
        *form.extra_files(quantization, folder),
        *copy_companions(store.checkpoint.path, folder),
    )
    values = partial(final_values, store, form, floats)
    with job.progress.task("Computing the reference"):
        evidence, sampled_from = save_reference(job, form, values, folder)
    settings = LanguageSettings(
        target=target,
        scheme=job.recipe.scheme,
        options=dict(options),
        dtype=floats.name,
        architecture=store.checkpoint.architecture,
        versions={package: version(package) for package in form.packages},
        sampled_from=sampled_from,
        layers={name: StoredLayer.of(form.final(store.quantized(name))) for name in layers.specs},
    )
    evidence = (*evidence, settings.write(folder))
    with job.progress.task("Verifying the folder"):
        checks = tuple(prove(folder, form, job.threads))
    refuse_failed(checks, f"{target} folder", "", fix="Report it: the file is not what edgeq meant to write.")
    return BuildResult(
        files, _load_hints(floats, quantization), form.notes(layers), evidence, checks, form.proved_by
    )


def quantized_layers(store: WeightStore, plan: Plan, dtype: str) -> QuantizedLayers:
    """The quantized matrices of the store, and the linear layers of the plan that stay float."""
    weights = {name: store.quantized(name) for name in store.layers}
    specs = {name: weight.spec for name, weight in weights.items()}
    linear = [node.name for node in plan.nodes.values() if node.op_type != "Embedding"]
    # An output layer that shares the table of embeddings is a layer to the readers all the same.
    linear += [] if _HEAD in linear else [_HEAD]
    shapes = {name: weight.codes.shape for name, weight in weights.items()}
    return QuantizedLayers(specs, shapes, tuple(name for name in linear if name not in specs), dtype)


def final_values(store: WeightStore, form: Format, floats: np.dtype[Any], name: str) -> Floats:
    """float32: the values of one of the checkpoint's tensors as the artefact has them."""
    layer = name.removesuffix(".weight")
    if layer != name and store.spec(layer) is not None:
        return form.final(store.quantized(layer)).dequantize()
    return np.asarray(_kept(store, floats, name), np.float32)


def _tensors(store: WeightStore, form: Format, floats: np.dtype[Any]) -> Iterator[LazyTensor]:
    for name, tensor in store.checkpoint.tensors.items():
        layer = name.removesuffix(".weight")
        spec = store.spec(layer) if layer != name else None
        if spec is None:
            dtype = floats if _is_float(tensor.dtype) else tensor.dtype
            yield LazyTensor(name, dtype, tensor.shape, partial(_kept, store, floats, name))
            continue
        outputs, inputs = tensor.shape
        for key, part in form.parts(spec, Shape(outputs, inputs, floats)).items():
            make = partial(_made, part.make, store, layer)
            yield LazyTensor(f"{layer}.{key}", part.dtype, part.shape, make)


def _made(make: Callable[[Any], Array], store: WeightStore, layer: str) -> Array:
    return make(store.quantized(layer))


def _kept(store: WeightStore, floats: np.dtype[Any], name: str) -> Array:
    """A tensor that is not quantized, rounded to ``floats``."""
    stored = store.tensor(name)
    if not _is_float(stored.dtype) or stored.dtype == floats:
        return stored
    with np.errstate(over="ignore"):
        rounded = stored.astype(floats)
    if not np.isfinite(rounded.astype(np.float32)).all():
        raise TargetError(
            f"The tensor {name!r} has values that {floats.name} cannot hold.",
            fix="Save the model in bfloat16 first: model.to(torch.bfloat16).save_pretrained(folder).",
        )
    return rounded


def _is_float(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or dtype == np.dtype(ml_dtypes.bfloat16)


def _load_hints(floats: np.dtype[Any], quantization: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": f"Hugging Face folder, quant_method {quantization['quant_method']}",
        "floats": floats.name,
    }
