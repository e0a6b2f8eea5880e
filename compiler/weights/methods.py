"""Method → the function that quantizes one weight by it; the lookup is the whole dispatch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.calibration.types import Array
from edgeq.compiler.recipe import Recipe, WeightMethod
from edgeq.compiler.weights.awq import awq_scales, quantize_awq
from edgeq.compiler.weights.gptq import quantize_gptq
from edgeq.compiler.weights.grid import GridRules
from edgeq.compiler.weights.nf4 import quantize_nf4
from edgeq.compiler.weights.output_error import relative_error
from edgeq.compiler.weights.result import MethodResult
from edgeq.compiler.weights.rtn import quantize_rtn
from edgeq.compiler.weights.scaling import Scaling
from edgeq.compiler.weights.smoothing import integer_error, smoothing_scales
from edgeq.compiler.weights.spec import Floats, QuantizedWeight, WeightSpec
from edgeq.compiler.weights.statistics import InputStatistics
from edgeq.targets.capabilities import WeightRules

# Weights that are rounded at a time where rows do not depend on each other.
_AT_ONCE = 1 << 22
# Inputs of each layer that products of INT8 are judged on.
_SAMPLED = 512


@dataclass(frozen=True)
class Settings:
    """What a method is asked, besides the weight."""

    recipe: Recipe
    rules: WeightRules

    @property
    def grids(self) -> GridRules:
        """What the format asks of grids."""
        rules = self.rules
        return GridRules(rules.negative_scales, rules.scale_dtype, rules.lowest_zero_point)

    @property
    def method(self) -> WeightMethod:
        """How weights are rounded."""
        return method_of(self.recipe)

    @property
    def rounds_inputs(self) -> bool:
        """Whether engines round what quantized layers read to INT8."""
        return self.recipe.scheme == "int8-dynamic"

    @property
    def hessian(self) -> bool:
        """Whether the method needs the Hessian of what layers read."""
        return self.method != "smoothquant"

    def empty_statistics(self, inputs: int) -> InputStatistics:
        """Of a layer with ``inputs``, as the method needs them."""
        sampled = 0 if self.hessian else _SAMPLED
        return InputStatistics.empty(inputs, hessian=self.hessian, sampled=sampled)


def method_of(recipe: Recipe) -> WeightMethod:
    """The recipe's method; what it names none for is rounded to nearest."""
    return recipe.weight_method or "rtn"


def round_stored(stored: Array, spec: WeightSpec, settings: Settings) -> MethodResult:
    """``stored`` [N, K], of any float type, rounded to nearest; a few rows are float32 at a time."""
    step = max(_AT_ONCE // max(stored.shape[1], 1), 1)
    parts = [
        _rounded(stored[start : start + step].astype(np.float32), spec, settings.grids)
        for start in range(0, len(stored), step)
    ]
    return MethodResult(_joined(parts))


def quantize_calibrated(
    weight: Floats, spec: WeightSpec, statistics: InputStatistics, settings: Settings
) -> MethodResult:
    """Float32 ``weight`` [N, K] by the recipe's method; layers that no input has reached to nearest."""
    if spec.form == "nf4":
        return _nearest(weight, spec, statistics, settings, "")
    if statistics.tokens == 0:
        why = "rounded to nearest: the calibration data never reaches it"
        return _nearest(weight, spec, statistics, settings, why)
    return _CALIBRATED[settings.method](weight, spec, statistics, settings)


def search_scales(
    weights: Sequence[Floats],
    statistics: InputStatistics,
    specs: Sequence[WeightSpec],
    settings: Settings,
    shared: npt.NDArray[np.int64] | None,
) -> Scaling:
    """The method's scales of the inputs that ``weights`` share (see :func:`awq_scales`)."""
    return _SCALES[settings.method](weights, statistics, specs, settings.grids, shared)


def scales_inputs(method: WeightMethod) -> bool:
    """Whether the method scales inputs before it rounds."""
    return method in _SCALES


def _awq_scales(
    weights: Sequence[Floats],
    statistics: InputStatistics,
    specs: Sequence[WeightSpec],
    rules: GridRules,
    shared: npt.NDArray[np.int64] | None,
) -> Scaling:
    return Scaling(awq_scales(weights, statistics, specs, rules, shared))


_SCALES: dict[WeightMethod, Callable[..., Scaling]] = {"awq": _awq_scales, "smoothquant": smoothing_scales}


def _gptq(weight: Floats, spec: WeightSpec, statistics: InputStatistics, settings: Settings) -> MethodResult:
    damping, act_order = settings.recipe.damping, settings.recipe.act_order
    return quantize_gptq(weight, spec, statistics, settings.grids, damping=damping, act_order=act_order)


def _awq(weight: Floats, spec: WeightSpec, statistics: InputStatistics, settings: Settings) -> MethodResult:
    return quantize_awq(weight, spec, statistics, settings.grids)


def _smoothed(
    weight: Floats, spec: WeightSpec, statistics: InputStatistics, settings: Settings
) -> MethodResult:
    found = round_stored(weight, spec, settings)
    return replace(found, record={"error": integer_error(weight, found.weight, statistics)})


_CALIBRATED: dict[WeightMethod, Callable[[Floats, WeightSpec, InputStatistics, Settings], MethodResult]] = {
    "gptq": _gptq,
    "awq": _awq,
    "smoothquant": _smoothed,
}


def _nearest(
    weight: Floats, spec: WeightSpec, statistics: InputStatistics, settings: Settings, why: str
) -> MethodResult:
    found = round_stored(weight, spec, settings)
    record: dict[str, Any] = {"fallback": why} if why else {}
    if statistics.tokens:
        record["error"] = relative_error(weight, found.weight, statistics)
    return replace(found, record=record)


def _rounded(weight: Floats, spec: WeightSpec, grids: GridRules) -> QuantizedWeight:
    if spec.form == "nf4":
        return quantize_nf4(weight, spec)
    return quantize_rtn(weight, spec, grids)


def _joined(parts: list[QuantizedWeight]) -> QuantizedWeight:
    if len(parts) == 1:
        return parts[0]
    zeros = [part.zero_points for part in parts if part.zero_points is not None]
    return QuantizedWeight(
        parts[0].spec,
        np.concatenate([part.codes for part in parts]),
        np.concatenate([part.scales for part in parts]),
        np.concatenate(zeros) if zeros else None,
    )
