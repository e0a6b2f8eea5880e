"""``int8-static``: Neural Compressor's PT2E flow with edgeq's ranges and weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgeq.calibration.types import DataSource, TensorSpec
from edgeq.compiler.plan import Plan
from edgeq.compiler.quantize.range_choice import CANDIDATES, output_error
from edgeq.compiler.recipe import RangeMethod, Recipe
from edgeq.progress import Progress
from edgeq.targets.neural_compressor.annotate import keep_in_float, plan_of
from edgeq.targets.neural_compressor.calibrate import observe, run_samples, some_batches
from edgeq.targets.neural_compressor.inc import convert, prepare
from edgeq.targets.neural_compressor.names import name_nodes
from edgeq.targets.neural_compressor.observers import Ranges
from edgeq.targets.neural_compressor.quantized import QuantizedProgram
from edgeq.targets.neural_compressor.weights import round_weights

if TYPE_CHECKING:
    from torch.fx import GraphModule

_FORM = "INT8 kernel"
# Samples that range methods are compared on.
_COMPARED = 16


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

    kept = keep_in_float(name_nodes(module.graph), recipe)
    prepared = prepare(module, StaticQuantConfig())
    nodes = name_nodes(prepared.graph)
    plan = plan_of(nodes, kept, _FORM)
    observed = observe(prepared)
    samples = run_samples(prepared, inputs, source, recipe.calibration_samples, progress)
    plan.notes.append(f"Ranges come from {samples} calibration samples.")
    batches = list(some_batches(inputs, source, _COMPARED))
    reference = _outputs(prepared, batches) if recipe.range_method == "auto" else []
    if round_weights(prepared, recipe.saturation_safe) and not recipe.saturation_safe:
        plan.notes.append(
            "CPUs without VNNI may saturate in layers of this artefact (saturation_safe is off)."
        )
    method = _choose(prepared, observed, recipe, batches, reference, plan)
    _set_ranges(observed, method, recipe.percentile)
    return QuantizedProgram.of(convert(prepared), plan, nodes)


def _choose(
    prepared: GraphModule,
    observed: Sequence[Ranges],
    recipe: Recipe,
    batches: Sequence[Any],
    reference: Any,
    plan: Plan,
) -> RangeMethod:
    """The recipe's method; for ``auto`` the one whose rounded outputs are closest to the float ones."""
    if recipe.range_method != "auto" or not observed:
        return recipe.range_method
    errors: dict[RangeMethod, float] = {}
    for method in CANDIDATES:
        _set_ranges(observed, method, recipe.percentile)
        _simulate(observed, True)
        errors[method] = output_error(_outputs(prepared, batches), reference)
    _simulate(observed, False)
    best = min(CANDIDATES, key=lambda method: errors[method])
    told = ", ".join(f"{method} {error:.2g}" for method, error in errors.items())
    plan.notes.append(f"Ranges: {best}, whose outputs are closest to the float model's ({told}).")
    return best


def _set_ranges(observed: Sequence[Ranges], method: RangeMethod, percentile: float) -> None:
    for ranges in observed:
        ranges.choose(method, percentile)


def _simulate(observed: Sequence[Ranges], on: bool) -> None:
    for ranges in observed:
        ranges.simulating = on


def _outputs(prepared: GraphModule, batches: Sequence[Any]) -> list[dict[str, Any]]:
    import torch

    with torch.no_grad():
        results = [prepared(*batch) for batch in batches]
    return [{str(index): tensor.numpy() for index, tensor in enumerate(result)} for result in results]
