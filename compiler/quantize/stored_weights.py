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
        "Conv": lambda node, state: expand_convolution(node, state, reason),
        "ConvTranspose": handler((1, (1,))),
        "LSTM": recurrent,
        "GRU": recurrent,
        "RNN": recurrent,
        "MatMul": lambda node, state: expand_matmul(node, state, reason),
        "Gemm": lambda node, state: expand_gemm(node, state, reason),
    }


_CHANNELS_LAST = (0, 2, 3, 1)
MISREAD = (
    "with 8-bit weights the runtime computes it wrongly: it takes the Transpose behind it for another one"
)


def expand_convolution(node: ir.Node, state: Rewriter, reason: str) -> Decision:
    """A scale per output channel, where the runtime reads the convolution right."""
    if state.capabilities.misreads_transposed and is_misread(node):
        return Decision("fp32", MISREAD)
    return expand_inputs(node, state, [(1, (0,))], reason)


def is_misread(node: ir.Node) -> bool:
    """Whether a pointwise convolution stands right before a Transpose that does not put channels last.

    OpenVINO makes one matrix product of both (its pass ConvertWeightCompressedConv1x1ToMatmul), whatever the
    order of the Transpose is.
    """
    if node.op_type != "Conv" or (weight := find_weight(node.inputs[1])) is None:
        return False
    readers = [reader for reader in node.outputs[0].consumers() if reader.op_type == "Transpose"]
    pointwise = len(weight.shape) == 4 and tuple(weight.shape[2:]) == (1, 1)
    return pointwise and any(tuple(r.attributes.get_ints("perm", ())) != _CHANNELS_LAST for r in readers)


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
