"""Which inputs of an op hold weights, and along which axes each channel gets its own INT8 scale."""

from __future__ import annotations

import onnx_ir as ir

from edgeq.compiler.quantize.expanded import expand_inputs
from edgeq.compiler.quantize.rewriter import Rewriter
from edgeq.compiler.quantize.walk import Decision, Handler
from edgeq.compiler.quantize.weights import find_weight


def int8_storage(reason: str) -> dict[str, Handler]:
    """Handlers that store the weights of an op in int8 and leave its arithmetic in float."""

    def handler(*inputs: tuple[int, tuple[int, ...]]) -> Handler:
        return lambda node, state: expand_inputs(node, state, inputs, reason)

    recurrent = handler((1, (0, 1)), (2, (0, 1)))
    return {
        "Conv": handler((1, (0,))),
        "ConvTranspose": handler((1, (1,))),
        "LSTM": recurrent,
        "GRU": recurrent,
        "RNN": recurrent,
        "MatMul": lambda node, state: expand_matmul(node, state, reason),
        "Gemm": lambda node, state: expand_gemm(node, state, reason),
    }


def expand_matmul(node: ir.Node, state: Rewriter, reason: str) -> Decision:
    """A scale per output feature: all axes but the summed one, on either side of the product."""
    left, right = find_weight(node.inputs[0]), find_weight(node.inputs[1])
    if right is not None and len(right.shape) >= 2:
        rank = len(right.shape)
        axes = tuple(axis for axis in range(rank) if axis != rank - 2)
        return expand_inputs(node, state, [(1, axes)], reason)
    if left is not None and len(left.shape) >= 2:
        return expand_inputs(node, state, [(0, tuple(range(len(left.shape) - 1)))], reason)
    return expand_inputs(node, state, [(1, ())], reason)


def expand_gemm(node: ir.Node, state: Rewriter, reason: str) -> Decision:
    """A scale per output feature of B."""
    axis = 0 if node.attributes.get_int("transB", 0) else 1
    return expand_inputs(node, state, [(1, (axis,))], reason)
