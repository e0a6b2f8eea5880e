"""``int8-static``: Neural Compressor's PT2E flow with edgeq's ranges and weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from edgeq.calibration.types import DataSource, TensorSpec
from edgeq.compiler.quantize.range_choice import CANDIDATES, output_error
from edgeq.compiler.recipe import RangeMethod, Recipe
from edgeq.progress import Progress
from edgeq.targets.neural_compressor.annotate import keep_in_float, plan_of
from edgeq.targets.neural_compressor.bias import correct, correctable, output_means
from edgeq.targets.neural_compressor.calibrate import has_fixed_batch, observe, run_samples
from edgeq.targets.neural_compressor.inc import convert, prepare
from edgeq.targets.neural_compressor.names import name_nodes, nodes_left
from edgeq.targets.neural_compressor.observers import Mode, Ranges
from edgeq.targets.neural_compressor.quantized import QuantizedProgram
from edgeq.targets.neural_compressor.smooth import smooth
from edgeq.targets.neural_compressor.weights import MAY_SATURATE, layers_of, round_weights

if TYPE_CHECKING:
    from torch.fx import GraphModule

_FORM = "INT8 kernel"
# Samples that range methods are compared on.
_COMPARED = 32


def quantize_static(
    module: GraphModule,
    inputs: Sequence[TensorSpec],
    recipe: Recipe,
    source: DataSource,
    progress: Progress,
) -> QuantizedProgram:
    """Calibrate and quantize ``module``, which is changed.

    Raises:
        DataError: the data is empty, cannot be used, or gives NaN or infinite activations.
        UsageError: an override matches no node, or asks for what it cannot have.
        TargetError: Neural Compressor fails.
    """
    from neural_compressor.torch.quantization import StaticQuantConfig

    nodes = name_nodes(module.graph)
    kept = keep_in_float(nodes, recipe)
    notes = [smooth(module, nodes, kept, inputs, source, recipe)] if recipe.smoothing else []
    prepared = prepare(module, StaticQuantConfig())
    nodes = nodes_left(nodes, prepared.graph)
    plan = plan_of(nodes, kept, _FORM, recipe.scheme)
    observed = observe(prepared)
    seen = run_samples(prepared, inputs, source, recipe.calibration_samples, progress, keep=_COMPARED)
    notes.append(f"Ranges come from {seen.samples} calibration samples.")
    notes.extend(_fit(prepared, observed, inputs, seen.first, recipe))
    plan.notes.extend(note for note in notes if note)
    return QuantizedProgram.of(convert(prepared), plan, nodes)


def _fit(
    prepared: GraphModule,
    observed: Sequence[Ranges],
    inputs: Sequence[TensorSpec],
    batches: Sequence[Any],
    recipe: Recipe,
) -> Iterator[str]:
    """Round the weights, choose the ranges, correct the biases; tells what the user should know."""
    _set_mode(observed, "pass")
    reference = _outputs(prepared, batches)
    corrected = correctable(layers_of(prepared)) if recipe.bias_correction else []
    together = batches[0] if has_fixed_batch(inputs) else _together(batches)
    means = output_means(prepared, corrected, together) if corrected else {}
    if round_weights(prepared, recipe.saturation_safe) and not recipe.saturation_safe:
        yield MAY_SATURATE
    method = recipe.range_method
    if method == "auto" and observed:
        errors = _errors(prepared, observed, recipe, batches, reference)
        method = min(CANDIDATES, key=lambda name: errors[name])
        told = ", ".join(f"{name} {error:.2g}" for name, error in errors.items())
        yield f"Ranges: {method}, whose outputs are closest to the float model's ({told})."
    _set_ranges(observed, method, recipe.percentile)
    if corrected:
        _set_mode(observed, "simulate")
        correct(prepared, corrected, means, together)
        yield f"Bias correction: {len(corrected)} layers."
    _set_mode(observed, "pass")


def _together(batches: Sequence[Any]) -> Any:
    """All batches as one where their sizes allow it, else the first."""
    import torch

    first = batches[0]
    alike = [batch for batch in batches if [t.shape for t in batch] == [t.shape for t in first]]
    return tuple(torch.cat(parts) for parts in zip(*alike, strict=True))


def _errors(
    prepared: GraphModule,
    observed: Sequence[Ranges],
    recipe: Recipe,
    batches: Sequence[Any],
    reference: Any,
) -> dict[RangeMethod, float]:
    """Method → squared error over power of the outputs, with every rounding simulated."""
    errors: dict[RangeMethod, float] = {}
    _set_mode(observed, "simulate")
    for method in CANDIDATES:
        _set_ranges(observed, method, recipe.percentile)
        errors[method] = output_error(_outputs(prepared, batches), reference)
    return errors


def _set_ranges(observed: Sequence[Ranges], method: RangeMethod, percentile: float) -> None:
    for ranges in observed:
        ranges.choose(method, percentile)


def _set_mode(observed: Sequence[Ranges], mode: Mode) -> None:
    for ranges in observed:
        ranges.mode = mode


def _outputs(prepared: GraphModule, batches: Sequence[Any]) -> list[dict[str, Any]]:
    import torch

    with torch.no_grad():
        results = [prepared(*batch) for batch in batches]
    return [{str(index): tensor.numpy() for index, tensor in enumerate(result)} for result in results]
