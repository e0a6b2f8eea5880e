"""Schemes ``palettize-4`` and ``palettize-6``: which weights become indices into a small palette of floats.

The model keeps its float weights: clustering them is up to the target, which writes palettes in its own
format. The plan lists the weights by name, with their dtype ``pal4`` or ``pal6``.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from edgeq.compiler.model import Model
from edgeq.compiler.plan import QuantDtype, QuantSpec
from edgeq.compiler.quantize.expanded import refused
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.quantize.rewriter import Rewriter
from edgeq.compiler.quantize.walk import Decision, Handlers, offered, quantize_nodes
from edgeq.compiler.quantize.weights import NOT_FINITE, Refusal, Weight, find_weight, why_not_constant
from edgeq.compiler.recipe import Precision, Recipe, Scheme
from edgeq.progress import Progress
from edgeq.targets.capabilities import Capabilities

# A palette of 64 floats and its node cost more than they save below this; coremltools has the same limit.
SMALLEST_WEIGHT = 2048

_DEFAULTS: dict[Scheme, Precision] = {"palettize-4": "pal4", "palettize-6": "pal6"}
_WEIGHT_INPUTS = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (1,), "MatMul": (0, 1), "Gather": (0,)}
_FEW = Refusal(
    f"its weights are fewer than {SMALLEST_WEIGHT}: a palette would not make them smaller", asked=False
)
_TRANSPOSED = Refusal("its weights are shared with another node and read through a Transpose", asked=True)


def quantize_palettize(
    model: Model, capabilities: Capabilities, recipe: Recipe, *, progress: Progress | None = None
) -> Quantized:
    """Plan which weights get a palette, and of which size.

    Raises:
        UsageError: an override matches nothing or asks for a precision that this scheme has not.
    """
    precisions: tuple[tuple[Precision, QuantDtype], ...] = (("pal4", "pal4"), ("pal6", "pal6"))
    handlers: dict[Precision, Handlers] = {
        precision: offered(dict.fromkeys(_WEIGHT_INPUTS, _planner(dtype)), capabilities.weight_only)
        for precision, dtype in precisions
    }
    return quantize_nodes(model, capabilities, recipe, handlers, _DEFAULTS[recipe.scheme], progress)


def _planner(dtype: QuantDtype) -> Callable[[ir.Node, Rewriter], Decision]:
    return lambda node, state: _plan(node, state, dtype)


def _plan(node: ir.Node, state: Rewriter, dtype: QuantDtype) -> Decision:
    found = [(node.inputs[i], find_weight(node.inputs[i])) for i in _WEIGHT_INPUTS[node.op_type]]
    weights = [weight for _, weight in found if weight is not None]
    if not weights:
        return refused(why_not_constant(found[-1][0]))
    refusal = next((reason for weight in weights if (reason := _why_not(weight))), None)
    if refusal is not None:
        return refused(refusal)
    for weight in weights:
        # A weight that several nodes read has one palette: that of the first.
        dtype = state.plan.weights.setdefault(weight.name, QuantSpec(dtype, symmetric=False)).dtype
    bits = dtype.removeprefix("pal")
    precision: Precision = "pal4" if dtype == "pal4" else "pal6"
    return Decision(
        precision, f"weights are indices of {bits} bits into a palette of {2 ** int(bits)} floats"
    )


def _why_not(weight: Weight) -> Refusal | None:
    if weight.perm is not None:
        return _TRANSPOSED
    if weight.size < SMALLEST_WEIGHT:
        return _FEW
    return None if weight.finite() else NOT_FINITE
