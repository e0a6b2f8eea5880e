"""Products of INT4 weights right behind attention of several heads, kept apart from it.

TensorRT (for RTX 1.7.1) makes attention one kernel. Of a product that reads its result, transposed from
heads to rows, it then fuses what follows and unpacks the INT4 weights in a kernel of their own, on every
run; with an elementwise operator in between, the product unpacks them itself.
``tests/targets/tensorrt/test_weight_only.py`` shows both.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeq.compiler.quantize.moves import moved_from
from edgeq.compiler.quantize.rewriter import Rewriter
from edgeq.compiler.quantize.weights import find_weight


def keep_apart(node: ir.Node, inputs: int, state: Rewriter) -> None:
    """Multiply what a product of ``inputs`` numbers each reads by ones, where it comes from attention."""
    value = node.inputs[0]
    source = None if value is None else moved_from(value).producer()
    if value is None or source is None or not _is_attention(source):
        return
    # A single number would be folded away by the compiler.
    ones = state.initializer(f"{node.name}_ones", np.ones(inputs, np.float32))
    made = state.node("Mul", [value, ones], f"{node.name}_apart")
    made.outputs[0].shape, made.outputs[0].type = value.shape, value.type
    state.insert_before(node, [made])
    node.replace_input_with(0, made.outputs[0])


def _is_attention(node: ir.Node) -> bool:
    """Whether ``node`` multiplies two results; its weights may have been rewritten already."""
    return node.op_type == "MatMul" and not any(map(_is_weight, node.inputs))


def _is_weight(value: ir.Value | None) -> bool:
    if value is None or find_weight(value) is not None:
        return True
    source = moved_from(value).producer()
    return source is not None and source.op_type == "DequantizeLinear"
