"""``int8-dynamic``: INT8 weights, activations rounded at run time, by Neural Compressor's PT2E flow.

Neural Compressor's documented flow (prepare, convert) leaves the observers of the weights empty: every scale
is that of no data, and the model is broken without a message. They fill on a first forward, which it does not
mention. Here no scale depends on a forward: edgeq's own rounding takes them from the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeq.compiler.recipe import Recipe
from edgeq.targets.neural_compressor.annotate import keep_in_float, plan_of
from edgeq.targets.neural_compressor.inc import convert, prepare
from edgeq.targets.neural_compressor.names import name_nodes, nodes_left
from edgeq.targets.neural_compressor.quantized import QuantizedProgram
from edgeq.targets.neural_compressor.weights import MAY_SATURATE, round_weights

if TYPE_CHECKING:
    from torch.fx import GraphModule

_FORM = "INT8 kernel on activations that are rounded at run time, one scale per tensor"


def quantize_dynamic(module: GraphModule, recipe: Recipe) -> QuantizedProgram:
    """Quantize the fully connected layers of ``module``, which is changed.

    Raises:
        DataError: weights are not finite.
        UsageError: an override matches no node, or asks for what it cannot have.
        TargetError: Neural Compressor fails.
    """
    from neural_compressor.torch.quantization import DynamicQuantConfig

    nodes = name_nodes(module.graph)
    kept = keep_in_float(nodes, recipe)
    prepared = prepare(module, DynamicQuantConfig())
    nodes = nodes_left(nodes, prepared.graph)
    plan = plan_of(nodes, kept, _FORM, recipe.scheme)
    if round_weights(prepared, recipe.saturation_safe) and not recipe.saturation_safe:
        plan.notes.append(MAY_SATURATE)
    return QuantizedProgram.of(convert(prepared), plan, nodes)
