"""Scheme ``int4-weight``: matrix products and embeddings in blocks of 4 bits, convolutions in int8."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import onnx_ir as ir

from edgeq.calibration.types import DataSource
from edgeq.compiler.model import Model
from edgeq.compiler.plan import Plan
from edgeq.compiler.quantize.blocked_weights import blocked_linear
from edgeq.compiler.quantize.blocks import check_block_size
from edgeq.compiler.quantize.embeddings import blocked_gather
from edgeq.compiler.quantize.int8_weight import int8_weight_handlers
from edgeq.compiler.quantize.learned_blocks import Data, learn_blocks
from edgeq.compiler.quantize.matmul_nbits import nbits_linear
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.quantize.rewriter import Rewriter
from edgeq.compiler.quantize.stored_weights import int8_storage
from edgeq.compiler.quantize.walk import Decision, Handler, Handlers, Prepare, offered, quantize_nodes
from edgeq.compiler.recipe import Precision, Recipe
from edgeq.compiler.weights.methods import method_of
from edgeq.compiler.weights.rules import CALIBRATED
from edgeq.progress import Progress, SilentProgress
from edgeq.targets.capabilities import Capabilities

_TOO_COARSE = "int8 weights: 4 bits without calibration cost convolutions too much accuracy"
_NO_KERNEL = "no INT4 kernel for this op: int8 weights in the file, expanded to float when the model loads"


def quantize_int4_weight(
    model: Model,
    capabilities: Capabilities,
    recipe: Recipe,
    calibration: DataSource | None = None,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """Store matrix products and embeddings in int4 blocks, other weights in int8.

    ``calibration`` is what the recipe's ``weight_method`` learns from; rounding to nearest does not read it.

    Raises:
        UsageError: an override matches nothing or asks for a precision that this scheme has not.
        TargetError: the target has no kernel for the recipe's block size, or no product for the method.
        DataError: the method needs data, and there is none or the model cannot take it.
    """
    check_block_size(capabilities, recipe)
    reads_int4 = capabilities.weight_form == "dequantize"
    handlers: dict[str, Handler] = {
        **int8_storage(_TOO_COARSE if reads_int4 else _NO_KERNEL),
        **dict.fromkeys(("MatMul", "Gemm"), _LINEAR[capabilities.block_form]),
        "Gather": _gather4,
    }
    by_precision: dict[Precision, Handlers] = {
        "int4": offered(handlers, capabilities.weight_only),
        "int8": int8_weight_handlers(recipe, capabilities),
    }
    learn: Prepare | None = None
    if method_of(recipe) in CALIBRATED:
        data = Data(calibration, threads, progress or SilentProgress())
        learn = partial(learn_blocks, data=data)
    quantized = quantize_nodes(model, capabilities, recipe, by_precision, "int4", progress, learn)
    quantized.plan.notes.extend(_notes(quantized.plan, recipe))
    return quantized


def _notes(plan: Plan, recipe: Recipe) -> Iterator[str]:
    """Which matrix products have 8 bits although nobody asked for that."""
    products = [node for node in plan.nodes.values() if node.op_type in ("MatMul", "Gemm") and node.asked]
    wider = [node for node in products if node.precision == "int8"]
    if wider and not any(override.precision == "int8" for override in recipe.overrides):
        yield (
            f"{len(wider)} of {len(products)} matrix products have int8 weights instead of int4, "
            f"first {wider[0].name!r}: {wider[0].reason}."
        )


def _nbits4(node: ir.Node, state: Rewriter) -> Decision:
    return nbits_linear(node, state, 4)


_LINEAR: dict[str, Handler] = {"nbits": _nbits4, "dequantize": blocked_linear}


def _gather4(node: ir.Node, state: Rewriter) -> Decision:
    return blocked_gather(node, state, 4)
