"""INT4 weights by Neural Compressor's ``autotune``: the coarsest blocks and the plainest method that do."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from edgeq.calibration.types import DataSource, TensorSpec
from edgeq.compiler.plan import Plan
from edgeq.compiler.recipe import Recipe
from edgeq.errors import TargetError
from edgeq.progress import Progress
from edgeq.targets.neural_compressor.autotune import Judge, Tuned, autotune
from edgeq.targets.neural_compressor.options import Method
from edgeq.targets.neural_compressor.weight_only.absorb import absorbing_layers
from edgeq.targets.neural_compressor.weight_only.compute import outputs_of
from edgeq.targets.neural_compressor.weight_only.layers import Layer, layers_of, plan_layers
from edgeq.targets.neural_compressor.weight_only.quantize import (
    CALIBRATED,
    calibrate_with,
    config_of,
    example_of,
    float_layers,
    note_scales,
    put_back,
    samples_of,
)

if TYPE_CHECKING:
    import torch

# Coarse blocks make small files.
_BLOCKS = (128, 64, 32, 16)


@dataclass(frozen=True)
class TunedWeights:
    """The model that ``autotune`` returned, and what it was made with."""

    module: Any
    plan: Plan
    block: int
    tuned: Tuned


@dataclass(frozen=True)
class _Setting:
    method: Method
    block: int
    plan: Plan

    @property
    def text(self) -> str:
        return f"{self.method} in blocks of {self.block}"


def tune_weights(
    module: torch.nn.Module,
    recipe: Recipe,
    judge: Judge,
    outputs: Sequence[TensorSpec],
    calibration: DataSource | None,
    progress: Progress,
) -> TunedWeights:
    """Try methods and block sizes until one keeps the metric; RTN alone without calibration data.

    Raises:
        DataError: the data cannot be used.
        UsageError: an override matches no layer.
        TargetError: no layer can have INT4 weights, or Neural Compressor fails.
    """
    samples = samples_of(calibration, recipe) if calibration is not None else []
    absorbing = absorbing_layers(module, samples[0]) if samples else {}
    methods = [m for m in get_args(Method) if m not in CALIBRATED or _usable(m, samples, absorbing)]
    settings = list(_settings(module, recipe, methods))
    names = [spec.name for spec in outputs]
    kept = float_layers(module, settings[-1].plan)
    with progress.task("Tuning"):
        tuned = autotune(
            module,
            [(s.text, config_of(s.plan, recipe, s.block, s.method, absorbing)) for s in settings],
            judge,
            lambda model, inputs: outputs_of(model, inputs, names),
            calibrate_with(samples) if samples else None,
            example_of(samples),
        )
    setting = _returned(tuned.model, settings)
    if setting.method == "awq":
        note_scales(absorbing, setting.plan)
    tried = "; ".join(judge.describe(trial, tuned.baseline) for trial in tuned.trials)
    setting.plan.notes.append(
        f"autotune: {judge.metric.name} {tuned.baseline:.4g} in float; {tried}. It returned {setting.text}."
    )
    kept = {name: layer for name, layer in kept.items() if setting.plan.nodes[name].precision != "int4"}
    return TunedWeights(put_back(tuned.model, kept), setting.plan, setting.block, tuned)


def _usable(method: Method, samples: list[Any], absorbing: dict[str, list[str]]) -> bool:
    if method == "awq":
        return bool(absorbing)
    return bool(samples) and importlib.util.find_spec("accelerate") is not None


def _settings(module: Any, recipe: Recipe, methods: Sequence[Method]) -> Iterator[_Setting]:
    """Every method at every block size that the most layers can have."""
    layers = layers_of(module)
    sizes = (recipe.block_size,) if recipe.block_size else _BLOCKS
    counts = {block: _rounded(layers, recipe, block) for block in sizes}
    if not any(counts.values()):
        plan_layers(layers, recipe, sizes[-1])
    for block in sizes:
        if counts[block] == max(counts.values()):
            yield from (_Setting(method, block, plan_layers(layers, recipe, block)) for method in methods)


def _rounded(layers: list[Layer], recipe: Recipe, block: int) -> int:
    """How many layers have INT4 weights in blocks of ``block``."""
    try:
        nodes = plan_layers(layers, recipe, block).nodes.values()
    except TargetError:
        return 0
    return sum(node.precision == "int4" for node in nodes)


def _returned(model: Any, settings: Sequence[_Setting]) -> _Setting:
    """The setting of the model that Neural Compressor has returned, as the model itself tells it."""
    used = next(config for config in model.qconfig.values() if config.dtype != "fp32")
    return next(s for s in settings if (s.method, s.block) == (used.name, used.group_size))
