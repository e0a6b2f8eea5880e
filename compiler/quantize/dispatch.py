"""Scheme → the function that quantizes by it. The lookup is the whole dispatch; each scheme is one file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgeq.calibration.types import DataSource
from edgeq.compiler.model import Model
from edgeq.compiler.quantize.dynamic import quantize_dynamic
from edgeq.compiler.quantize.fp8_static import quantize_fp8_static
from edgeq.compiler.quantize.fp16 import quantize_fp16
from edgeq.compiler.quantize.fp32 import quantize_fp32
from edgeq.compiler.quantize.int4_weight import quantize_int4_weight
from edgeq.compiler.quantize.int8_weight import quantize_int8_weight
from edgeq.compiler.quantize.palettize import quantize_palettize
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.quantize.static import quantize_static
from edgeq.compiler.recipe import Recipe, Scheme
from edgeq.compiler.weights.rules import check_weights
from edgeq.errors import DataError, TargetError, UsageError
from edgeq.progress import Progress
from edgeq.targets.capabilities import Capabilities


@dataclass(frozen=True)
class Request:
    """Everything a scheme may need: the normalized model, the target's rules, the recipe, the data."""

    model: Model
    capabilities: Capabilities
    recipe: Recipe
    calibration: DataSource | None
    threads: int | None
    progress: Progress


_Calibrated = Callable[..., Quantized]


def _maybe_calibrated(handler: _Calibrated) -> Callable[[Request], Quantized]:
    """Of a scheme whose method decides whether it needs data."""

    def run(request: Request) -> Quantized:
        return handler(
            request.model,
            request.capabilities,
            request.recipe,
            request.calibration,
            threads=request.threads,
            progress=request.progress,
        )

    return run


def _calibrated(handler: _Calibrated) -> Callable[[Request], Quantized]:
    """Of a scheme that always needs data."""
    run_with_data = _maybe_calibrated(handler)

    def run(request: Request) -> Quantized:
        if request.calibration is None:
            raise missing_calibration(request.recipe.scheme)
        return run_with_data(request)

    return run


_DataFree = Callable[..., Quantized]


def _data_free(handler: _DataFree) -> Callable[[Request], Quantized]:
    def run(request: Request) -> Quantized:
        return handler(request.model, request.capabilities, request.recipe, progress=request.progress)

    return run


HANDLERS: dict[Scheme, Callable[[Request], Quantized]] = {
    "fp32": _data_free(quantize_fp32),
    "fp16": _data_free(quantize_fp16),
    "int8-static": _calibrated(quantize_static),
    "fp8-static": _calibrated(quantize_fp8_static),
    "int8-dynamic": _data_free(quantize_dynamic),
    "int8-weight": _data_free(quantize_int8_weight),
    "int4-weight": _maybe_calibrated(quantize_int4_weight),
    "palettize-6": _data_free(quantize_palettize),
    "palettize-4": _data_free(quantize_palettize),
}

NEEDS_CALIBRATION: frozenset[Scheme] = frozenset({"int8-static", "fp8-static"})


def missing_calibration(scheme: Scheme) -> DataError:
    """The error for a static scheme without data: ranges are never taken from random inputs."""
    return DataError(
        f"Scheme {scheme!r} needs calibration data and none was given.",
        fix="Give representative samples with --calibration (a folder of images, .npz, text, …), "
        "or choose a scheme without data: int8-dynamic, int8-weight, int4-weight.",
    )


def check_scheme(scheme: Scheme, capabilities: Capabilities) -> None:
    """Refuse a scheme that the target cannot express, before any work.

    Raises:
        TargetError: naming what to take instead.
    """
    if scheme in capabilities.schemes:
        return
    known = f"It has: {', '.join(capabilities.schemes)}."
    if scheme in capabilities.scheme_reasons:
        reason, fix = capabilities.scheme_reasons[scheme]
        raise TargetError(
            f"Target {capabilities.target!r} has no scheme {scheme!r}: {reason}.", fix=f"{fix} {known}"
        )
    raise TargetError(f"Target {capabilities.target!r} has no scheme {scheme!r}.", fix=known)


def check_recipe(recipe: Recipe, capabilities: Capabilities) -> None:
    """Refuse what the target cannot express, and options that would do nothing there, before any work.

    Raises:
        TargetError: the target has no such scheme, or does not store such weights.
        UsageError: an option of the recipe that the target does not read.
    """
    check_scheme(recipe.scheme, capabilities)
    defaults = Recipe(scheme=recipe.scheme)
    for name, reason in capabilities.unused_options.items():
        value = getattr(recipe, name)
        if value != getattr(defaults, name):
            raise UsageError(
                f"The option {name} = {value} has no effect on target {capabilities.target!r}: {reason}.",
                fix="Leave it out.",
            )
    check_weights(recipe, capabilities)
    if capabilities.weights is None and recipe.scheme == "int8-weight" and recipe.accuracy_level == 0:
        _refuse_blocks(recipe)


def _refuse_blocks(recipe: Recipe) -> None:
    """Graphs have INT8 weights in blocks only where the arithmetic is INT8 too."""
    unread = "block_size" if recipe.block_size is not None else "symmetric_weights"
    if unread == "block_size" or not recipe.symmetric_weights:
        raise UsageError(
            f"{unread} has no effect with scheme 'int8-weight' and accuracy level 0.",
            fix="Set accuracy_level to 4, or leave it out.",
        )


def quantize(request: Request) -> Quantized:
    """Quantize the normalized model by the recipe's scheme.

    Raises:
        TargetError: the target has no such scheme.
        UsageError: an option that would do nothing on the target.
        DataError: a static scheme without calibration data, or data that cannot be used.
    """
    check_recipe(request.recipe, request.capabilities)
    return HANDLERS[request.recipe.scheme](request)
