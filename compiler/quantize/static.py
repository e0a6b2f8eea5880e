"""The scheme ``int8-static``: calibrated u8 activations, per-channel s8 weights, INT32 bias, as QDQ ONNX."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from edgeq.calibration.affine import Range
from edgeq.calibration.collect import collect
from edgeq.calibration.ranges import choose_range
from edgeq.calibration.sketch import Sketch
from edgeq.calibration.types import DataSource
from edgeq.compiler.model import Model, save
from edgeq.compiler.plan import Plan, QuantParams
from edgeq.compiler.planner import make_plan
from edgeq.compiler.quantize.linear_layers import quantize_constants
from edgeq.compiler.quantize.qdq import insert_qdq
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.quantize.static_params import activation_params
from edgeq.compiler.quantize.static_prepare import prepare
from edgeq.compiler.recipe import Recipe
from edgeq.progress import Progress, SilentProgress
from edgeq.targets.base import Capabilities


def quantize_static(
    model: Model,
    capabilities: Capabilities,
    recipe: Recipe,
    data: DataSource,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """Calibrate the normalized ``model`` on ``data`` and write it in QDQ form.

    Raises:
        DataError: the data is empty, does not fit the model, or makes NaN or infinite activations.
        UsageError: an override of the recipe matches nothing.
    """
    reporter = progress or SilentProgress()
    prepared = prepare(model, capabilities, recipe)
    plan = make_plan(prepared, capabilities, recipe)
    sketches = _calibrate(prepared, plan, recipe, data, threads, reporter)
    ranges = _ranges(sketches, recipe)
    activations = activation_params(prepared.ir.graph, plan, capabilities, ranges)
    constants = quantize_constants(prepared.ir.graph, plan, capabilities, recipe, activations)
    insert_qdq(prepared, plan, capabilities, recipe, activations, constants)
    params: dict[str, QuantParams] = {**activations, **{n: c.params for n, c in constants.items()}}
    return Quantized(prepared, plan, params)


def _calibrate(
    model: Model, plan: Plan, recipe: Recipe, data: DataSource, threads: int | None, progress: Progress
) -> Mapping[str, Sketch]:
    if not plan.activations:
        return {}
    with tempfile.TemporaryDirectory(prefix="edgeq-") as folder:
        path = Path(folder) / "float.onnx"
        save(model, path)
        statistics = collect(
            path,
            list(plan.activations),
            data,
            samples=recipe.calibration_samples,
            threads=threads,
            progress=progress,
        )
    return statistics.sketches


def _ranges(sketches: Mapping[str, Sketch], recipe: Recipe) -> dict[str, Range]:
    return {
        name: choose_range(sketch, recipe.range_method, percentile=recipe.percentile, tensor=name)
        for name, sketch in sketches.items()
    }
