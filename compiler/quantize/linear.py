"""MatMul and Gemm with a constant weight, seen as one thing: y = x @ rows.T + bias."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeq.compiler.quantize.rewriter import Rewriter
from edgeq.compiler.quantize.weights import NOT_FINITE, Floats, Refusal, Weight, find_weight, why_not_constant


@dataclass(frozen=True)
class Linear:
    """``x`` float32 [..., K]; ``weight`` as the node sees it, [K, N] or (``rows_first``) [N, K].

    ``alpha`` scales the product, ``bias`` (None: none) is added to it, scaled by ``beta``.
    """

    x: ir.Value
    weight: Weight
    rows_first: bool
    bias: ir.Value | None = None
    alpha: float = 1.0
    beta: float = 1.0

    @property
    def n(self) -> int:
        return self.weight.shape[0 if self.rows_first else 1]

    @property
    def k(self) -> int:
        return self.weight.shape[1 if self.rows_first else 0]

    @property
    def channel_axis(self) -> int:
        """The axis of the weight, as the node sees it, that has one scale per output."""
        return 0 if self.rows_first else 1

    @property
    def stored_rows(self) -> bool:
        """Whether the tensor in the file is [N, K]."""
        return self.rows_first == (self.weight.perm is None)

    def rows(self) -> Floats:
        """float32 [N, K], ``alpha`` not applied."""
        array = self.weight.array()
        return np.ascontiguousarray(array if self.rows_first else array.T)


def read_linear(node: ir.Node, state: Rewriter) -> Linear | Refusal:
    """The linear layer that ``node`` is, else why it is none."""
    inputs = node.inputs
    weight = find_weight(inputs[1])
    if weight is None:
        return why_not_constant(inputs[1])
    if len(weight.shape) != 2:
        return Refusal(f"its weights have {len(weight.shape)} dimensions, the kernel takes 2", asked=True)
    if not weight.finite():
        return NOT_FINITE
    x = inputs[0]
    assert x is not None
    if x.dtype is not None and x.dtype != ir.DataType.FLOAT:
        return Refusal(f"its input is {x.dtype.name.lower()}, not float32", asked=True)
    if node.op_type == "MatMul":
        return Linear(x, state.ties.resolve(weight), rows_first=False)
    return _read_gemm(node, x, state.ties.resolve(weight))


def _read_gemm(node: ir.Node, x: ir.Value, weight: Weight) -> Linear | Refusal:
    if node.attributes.get_int("transA", 0):
        return Refusal(
            "Gemm with transA reads a transposed activation, which no integer kernel does", asked=True
        )
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    alpha = node.attributes.get_float("alpha", 1.0)
    beta = node.attributes.get_float("beta", 1.0)
    rows_first = bool(node.attributes.get_int("transB", 0))
    return Linear(x, weight, rows_first, bias, alpha, beta)


def scaled_bias(linear: Linear, name: str, state: Rewriter) -> tuple[ir.Value | None, list[ir.Node]]:
    """The bias with ``beta`` applied, and the node that applies it when it is not 1."""
    if linear.bias is None or linear.beta == 0.0:
        return None, []
    if linear.beta == 1.0:
        return linear.bias, []
    factor = state.initializer(f"{name}_beta", np.array(linear.beta, np.float32))
    node = state.node("Mul", [linear.bias, factor], f"{name}_bias")
    return node.outputs[0], [node]
