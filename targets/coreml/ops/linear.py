"""Matrix products: Gemm, MatMul, FusedMatMul, Einsum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.linear_einsum import einsum
from edgeq.targets.coreml.ops.quantized_constants import flipped
from edgeq.targets.coreml.ops.tensors import scalar
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler

# MIL's linear is specified for inputs of rank 1 to 3; matmul takes the others.
_LINEAR_RANKS = (2, 3)


def matmul(node: OnnxNode) -> Var | Array:
    """MatMul (numpy's rules): ``linear`` for constant [K, N] weights, ``matmul`` otherwise."""
    node.require_float(0, 1)
    if node.rank(0) == 0 or node.rank(1) == 0:
        node.refuse("an input is a scalar")
    known, weight = node.constant(0), node.constant(1)
    if known is not None and weight is not None:
        return np.asarray(np.matmul(known, weight))
    if weight is not None and weight.ndim == 2 and node.rank(0) in _LINEAR_RANKS:
        return builder().linear(x=node.input(0), weight=_transposed(weight))
    if node.rank(1) == 2 and node.rank(0) in _LINEAR_RANKS and _own_compressed(node):
        return builder().linear(x=node.input(0), weight=flipped(node, node.input(1)))
    return product(node.input(0), node.input(1))


def product(x: Var, y: Var) -> Var:
    """``numpy.matmul``: vectors become matrices for the product, which MIL does for some cases only."""
    mb = builder()
    left = mb.expand_dims(x=x, axes=[0]) if x.rank == 1 else x
    right = mb.expand_dims(x=y, axes=[1]) if y.rank == 1 else y
    result = mb.matmul(x=left, y=right)
    added = ([-2] if x.rank == 1 else []) + ([-1] if y.rank == 1 else [])
    return mb.squeeze(x=result, axes=added) if added else result


def fused_matmul(node: OnnxNode) -> Var:
    """FusedMatMul (com.microsoft): ``alpha * op(A) @ op(B)``."""
    node.require_float(0, 1)
    for name in ("transBatchA", "transBatchB"):
        if node.attribute(name, 0):
            node.refuse(f"{name}=1 is not supported", "Transpose the input in the model.")
    first, second = bool(node.attribute("transA", 0)), bool(node.attribute("transB", 0))
    alpha = node.attribute("alpha", 1.0)
    x, y = node.input(0), node.input(1)
    if min(x.rank, y.rank) < 2:
        if first or second or not min(x.rank, y.rank):
            node.refuse("an input to be transposed has rank below 2")
        return _scaled(product(x, y), alpha)
    return _scaled(builder().matmul(x=x, y=y, transpose_x=first, transpose_y=second), alpha)


def gemm(node: OnnxNode) -> Var:
    """Gemm: ``alpha * A' @ B' + beta * C``."""
    node.require_float(0, 1)
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    bias = _gemm_bias(node, beta) if alpha == 1.0 else None
    x = _gemm_input(node)
    weight = _gemm_weight(node)
    if weight is not None:
        result = builder().linear(x=x, weight=weight, bias=bias)
    else:
        transposed = bool(node.attribute("transB", 0))
        result = builder().matmul(x=x, y=node.input(1), transpose_y=transposed)
        bias = None
    if bias is not None or not node.has_input(2):
        return _scaled(result, alpha)
    return _plus(node, _scaled(result, alpha), beta)


def _gemm_input(node: OnnxNode) -> Var:
    x = node.input(0)
    return builder().transpose(x=x, perm=[1, 0]) if node.attribute("transA", 0) else x


def _gemm_weight(node: OnnxNode) -> Array | Var | None:
    """B as ``linear``'s weight [N, K]; None when it is computed, or compressed in the order of others."""
    as_stored = bool(node.attribute("transB", 0))
    weight = node.constant(1)
    if weight is not None:
        return weight if as_stored else _transposed(weight)
    if as_stored and is_compressed(node.input(1)):
        return node.input(1)
    return flipped(node, node.input(1)) if not as_stored and _own_compressed(node) else None


def _gemm_bias(node: OnnxNode, beta: float) -> Array | None:
    """``beta * C`` as vector of N values, None when it is left out, dynamic or has rows of its own."""
    offset = node.constant(2)
    columns = node.shape(1)[0 if node.attribute("transB", 0) else 1]
    if offset is None or columns is None or (offset.ndim == 2 and offset.shape[0] != 1):
        return None
    return np.ascontiguousarray(np.broadcast_to(offset.reshape(-1) * offset.dtype.type(beta), (columns,)))


def _plus(node: OnnxNode, result: Var, beta: float) -> Var:
    if beta == 0.0:
        node.optional(2)
        return result
    return builder().add(x=result, y=_scaled(node.input(2), beta))


def _scaled(x: Var, factor: float) -> Var:
    return x if factor == 1.0 else builder().mul(x=x, y=scalar(x, factor))


def _transposed(weight: Array) -> Array:
    return np.ascontiguousarray(weight.T)


def _own_compressed(node: OnnxNode) -> bool:
    """Whether B is compressed and nobody else reads it, so that it can be stored in another order."""
    value = node.node.inputs[1]
    if value is None or value.is_graph_output() or len(list(value.uses())) != 1:
        return False
    return is_compressed(node.input(1))


def is_compressed(variable: Var) -> bool:
    """Whether the variable is a dequantized weight whose numbers stay compressed in the package."""
    return variable.op is not None and variable.op.op_type.startswith("constexpr_")


HANDLERS: dict[str, Handler] = {
    "Einsum": einsum,
    "Gemm": gemm,
    "MatMul": matmul,
    "com.microsoft.FusedMatMul": fused_matmul,
}
