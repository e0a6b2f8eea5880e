"""The recipe in NNCF's words: arguments of ``nncf.quantize`` and ``nncf.compress_weights``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import onnx_ir as ir

from edgeq.compiler.recipe import Recipe
from edgeq.errors import ConfigError, TargetError
from edgeq.targets.openvino.options import OpenVINOOptions

SCHEMES = ("int8-static", "int8-weight", "int4-weight")
# NNCF's own default for weights of 4 bits.
BLOCK_SIZE = 128
_NORMALIZATIONS = frozenset({"LayerNormalization", "RMSNormalization"})


def refuse(recipe: Recipe, options: OpenVINOOptions) -> None:
    """Refuse, before any work, what NNCF has no counterpart for.

    Raises:
        ConfigError: an option that would do nothing.
        TargetError: a range method or an override that NNCF has not.
    """
    if recipe.scheme not in SCHEMES:
        raise ConfigError(
            f"The option quantizer=nncf has no effect with the scheme {recipe.scheme!r}.",
            fix=f"Leave it out, or choose one of: {', '.join(SCHEMES)}.",
        )
    if recipe.weight_method is not None:
        raise TargetError(
            f"NNCF rounds weights by its own rules, not by the method {recipe.weight_method!r}.",
            fix="Leave it out, or take edgeq's own quantizer (-O quantizer=edgeq).",
        )
    if recipe.range_method not in _ESTIMATORS:
        known = ", ".join(_ESTIMATORS)
        raise TargetError(
            f"NNCF has no range method {recipe.range_method!r}.",
            fix=f"Take one of: {known}; or edgeq's own quantizer (-O quantizer=edgeq).",
        )
    if not recipe.bias_correction and options.correction != "fast":
        raise ConfigError(
            "The option 'correction' has no effect without bias correction.", fix="Leave one of them out."
        )


def static_arguments(
    nncf: Any, recipe: Recipe, options: OpenVINOOptions, graph: ir.Graph, excluded: Collection[str]
) -> dict[str, Any]:
    """Arguments of ``nncf.quantize``, but the model and its data."""
    advanced = nncf.AdvancedQuantizationParameters(
        disable_bias_correction=not recipe.bias_correction,
        activations_range_estimator_params=_ESTIMATORS[recipe.range_method](recipe),
    )
    if recipe.saturation_safe:
        # By default NNCF halves the range of the first convolutions' weights only.
        advanced.overflow_fix = nncf.OverflowFix.ENABLE
    if not recipe.smoothing:
        advanced.smooth_quant_alphas = nncf.AdvancedSmoothQuantParameters(matmul=-1)
    return {
        "model_type": nncf.ModelType.TRANSFORMER if is_transformer(options, graph) else None,
        "preset": None if options.preset == "auto" else nncf.QuantizationPreset(options.preset),
        "fast_bias_correction": options.correction == "fast",
        "ignored_scope": _ignored(nncf, excluded),
        "advanced_parameters": advanced,
    }


def weight_arguments(nncf: Any, recipe: Recipe, excluded: Collection[str]) -> dict[str, Any]:
    """Arguments of ``nncf.compress_weights``, but the model."""
    ignored = {"ignored_scope": _ignored(nncf, excluded)}
    if recipe.scheme == "int8-weight":
        return {"mode": nncf.CompressWeightsMode.INT8_ASYM, **ignored}
    modes = nncf.CompressWeightsMode
    fallback = nncf.GroupSizeFallbackMode.ADJUST
    return {
        "mode": modes.INT4_SYM if recipe.symmetric_weights else modes.INT4_ASYM,
        "group_size": recipe.block_size or BLOCK_SIZE,
        "advanced_parameters": nncf.AdvancedCompressionParameters(group_size_fallback_mode=fallback),
        **ignored,
    }


def _ignored(nncf: Any, excluded: Collection[str]) -> Any:
    return nncf.IgnoredScope(names=sorted(excluded), validate=False) if excluded else None


def is_transformer(options: OpenVINOOptions, graph: ir.Graph) -> bool:
    """NNCF has patterns and smoothing of their own for transformers, and leaves it to the user to say so."""
    if options.model_type != "auto":
        return options.model_type == "transformer"
    return any(node.op_type in _NORMALIZATIONS for node in graph) and any(
        node.op_type == "Softmax" for node in graph
    )


# --- range methods ------------------------------------------------------------------------------------------


def _own(recipe: Recipe) -> Any:
    from nncf.quantization.range_estimator import RangeEstimatorParameters

    return RangeEstimatorParameters()


def _minmax(recipe: Recipe) -> Any:
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    return RangeEstimatorParametersSet.MINMAX


def _histogram(recipe: Recipe) -> Any:
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    return RangeEstimatorParametersSet.HISTOGRAM


def _percentile(recipe: Recipe) -> Any:
    """Quantiles of every sample, averaged over the samples; both tails lose as much."""
    from nncf.quantization.range_estimator import (
        AggregatorType,
        RangeEstimatorParameters,
        StatisticsCollectorParameters,
        StatisticsType,
    )

    bound = StatisticsCollectorParameters(
        statistics_type=StatisticsType.QUANTILE,
        aggregator_type=AggregatorType.MEAN,
        quantile_outlier_prob=(1 - recipe.percentile / 100) / 2,
    )
    return RangeEstimatorParameters(min=bound, max=bound)


# ``auto``: NNCF's own choice. Its histogram minimises the squared error of the rounding, as ``mse`` does.
_ESTIMATORS: Mapping[str, Callable[[Recipe], Any]] = {
    "auto": _own,
    "minmax": _minmax,
    "percentile": _percentile,
    "mse": _histogram,
}
