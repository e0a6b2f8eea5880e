"""Scheme ``int8-weight``: weights in int8, activations in float.

Measured on ONNX Runtime 1.31 CPU: int8 weights that are expanded when the model loads run at float speed.
MatMulNBits with 8 bits and float activations has no fast kernel (down to 0.07x), with int8 activations
(``accuracy_level`` 4) it is up to 1.9x as fast for single rows and 0.6x for many: that is the user's choice.
"""

from __future__ import annotations

import onnx_ir as ir

from edgeq.compiler.model import Model
from edgeq.compiler.quantize.blocks import check_block_size
from edgeq.compiler.quantize.embeddings import blocked_gather, int8_gather
from edgeq.compiler.quantize.matmul_nbits import nbits_linear
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.quantize.rewriter import Rewriter
from edgeq.compiler.quantize.stored_weights import int8_storage
from edgeq.compiler.quantize.walk import Decision, Handler, offered, quantize_nodes
from edgeq.compiler.recipe import Recipe
from edgeq.progress import Progress
from edgeq.targets.capabilities import Capabilities


def quantize_int8_weight(
    model: Model, capabilities: Capabilities, recipe: Recipe, *, progress: Progress | None = None
) -> Quantized:
    """Store the weights of matrix products, convolutions, recurrences and embeddings in int8.

    Raises:
        UsageError: an override matches nothing or asks for a precision that this scheme has not.
        TargetError: the target has no kernel for the recipe's block size (``accuracy_level`` 4 only).
    """
    handlers = int8_weight_handlers(recipe, capabilities)
    return quantize_nodes(model, capabilities, recipe, {"int8": handlers}, "int8", progress)


def int8_weight_handlers(recipe: Recipe, capabilities: Capabilities) -> dict[str, Handler]:
    """Op type → handler that quantizes its weights to int8."""
    if recipe.accuracy_level == 0:
        return offered(
            {**int8_storage(capabilities.weight_note), "Gather": int8_gather}, capabilities.weight_only
        )
    check_block_size(capabilities, recipe)
    handlers: dict[str, Handler] = {
        **int8_storage(capabilities.weight_note),
        "MatMul": _nbits8,
        "Gemm": _nbits8,
        "Gather": _gather8,
    }
    return offered(handlers, capabilities.weight_only)


def _nbits8(node: ir.Node, state: Rewriter) -> Decision:
    return nbits_linear(node, state, 8)


def _gather8(node: ir.Node, state: Rewriter) -> Decision:
    return blocked_gather(node, state, 8)
