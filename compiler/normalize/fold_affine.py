"""BatchNormalization and Add, Sub, Mul, Div by constants per channel go into the linear layer beside them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir

from edgeq.calibration.types import Array
from edgeq.compiler.normalize.affine import Affine, affine_of
from edgeq.compiler.normalize.editing import (
    array,
    get_float,
    get_int,
    get_ints,
    get_string,
    is_op,
    nodes,
    only_user,
    rank,
    remove_if_unused,
    replace_value,
)
from edgeq.compiler.normalize.linear import Linear, bias_of, linear_of, scale_outputs, set_bias, set_weight


class FoldAffinePass(ir.passes.InPlacePass):
    """Fold an affine node into the layer before it, or into the convolution or Gemm after it.

    After: y = s·(W·x + b) + t is W' = s·W, b' = s·b + t. Before: W·(s·x + t) is W' = W·s, b' = b + ΣW·t,
    for a convolution with t ≠ 0 only without padding, because padding adds zeros after the shift.
    Requires: canonical constants, inferred shapes. Computed in float64, stored in the weight's dtype.
    """

    def __init__(self) -> None:
        super().__init__()
        self.applied: Counter[str] = Counter()

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        before = self.applied.total()
        for node in nodes(model):
            layer = None if node.graph is None else linear_of(node)
            if layer is None:
                continue
            while self._fold_after(model, layer):
                pass
            while self._fold_before(model, layer):
                pass
        return ir.passes.PassResult(model, self.applied.total() > before)

    def _fold_after(self, model: ir.Model, layer: Linear) -> bool:
        output = layer.node.outputs[0]
        follower = only_user(output)
        if follower is None or follower.graph is not layer.node.graph:
            return False
        affine = affine_of(follower, output, channels=layer.channels, axis=layer.axis, rank=layer.rank)
        if affine is None or not affine.is_finite or not (layer.has_bias or affine.only_scales):
            return False
        if not affine.only_shifts:
            scale_outputs(model, layer, affine.scale)
        if layer.has_bias:
            set_bias(model, layer, affine.scale * bias_of(layer) + affine.shift)
        replace_value(follower.outputs[0], output)
        remove_if_unused(follower)
        self.applied[f"fold {follower.op_type} into {layer.node.op_type}"] += 1
        return True

    def _fold_before(self, model: ir.Model, layer: Linear) -> bool:
        source = layer.node.inputs[0]
        maker = None if source is None else source.producer()
        if source is None or maker is None or maker.domain or only_user(source) is not layer.node:
            return False
        affine, value = _before(layer, maker)
        if affine is None or value is None or not affine.is_finite or not _accepts(layer, affine):
            return False
        _absorb(model, layer, affine)
        layer.node.replace_input_with(0, value)
        remove_if_unused(maker)
        self.applied[f"fold {maker.op_type} into the {layer.node.op_type} after it"] += 1
        return True


def _before(layer: Linear, maker: ir.Node) -> tuple[Affine | None, ir.Value | None]:
    """The affine map of the node in front of the layer, and the value that it maps."""
    weight = array(layer.node.inputs[1])
    if weight is None or not is_op(layer.node, "Conv", "Gemm") or get_int(layer.node, "transA", 0):
        return None, None
    channels = _input_channels(layer, weight.shape)
    for value in maker.inputs[:2]:
        # The constant must not enlarge the value: it has the layer's rank and channels already.
        if value is None or array(value) is not None or value.shape is None:
            continue
        if rank(value) == layer.rank and value.shape[1] == channels:
            return affine_of(maker, value, channels=channels, axis=1, rank=layer.rank), value
    return None, None


def _input_channels(layer: Linear, shape: tuple[int, ...]) -> int:
    if layer.node.op_type == "Gemm":
        return shape[1 if get_int(layer.node, "transB", 0) else 0]
    return shape[1] * get_int(layer.node, "group", 1)


def _accepts(layer: Linear, affine: Affine) -> bool:
    if layer.node.op_type == "Gemm" or affine.only_scales:
        return True
    pads = get_ints(layer.node, "pads") or ()
    return not any(pads) and get_string(layer.node, "auto_pad", "NOTSET") in ("NOTSET", "VALID")


def _absorb(model: ir.Model, layer: Linear, affine: Affine) -> None:
    weight = array(layer.node.inputs[1])
    assert weight is not None
    exact = weight.astype(np.float64)
    scale, shift = (_along_inputs(layer, v, weight.shape) for v in (affine.scale, affine.shift))
    if not affine.only_scales:
        set_bias(model, layer, bias_of(layer) + _sum_over_inputs(layer, exact * shift))
    if not affine.only_shifts:
        set_weight(model, layer.node, (exact * scale).astype(weight.dtype))


def _along_inputs(layer: Linear, values: Array, shape: tuple[int, ...]) -> Array:
    """Per input channel → broadcastable to the weight."""
    if layer.node.op_type == "Gemm":
        return values.reshape((1, -1) if get_int(layer.node, "transB", 0) else (-1, 1))
    # Conv weight [out, in / group, …]: the outputs of group g read the inputs of group g.
    group = get_int(layer.node, "group", 1)
    rows = np.repeat(values.reshape(group, -1), shape[0] // group, axis=0)
    return rows.reshape([shape[0], shape[1]] + [1] * (len(shape) - 2))


def _sum_over_inputs(layer: Linear, products: Array) -> np.ndarray:
    if layer.node.op_type == "Gemm":
        alpha = get_float(layer.node, "alpha", 1.0)
        sums: Array = products.sum(axis=1 if get_int(layer.node, "transB", 0) else 0)
        return alpha * sums
    return np.asarray(products.sum(axis=tuple(range(1, products.ndim))))


class MatMulAddToGemmPass(ir.passes.InPlacePass):
    """MatMul of a matrix by a constant one, plus a bias per column, becomes Gemm.

    Requires: canonical constants, inferred shapes. Only where the left input is known to have rank 2.
    """

    def __init__(self) -> None:
        super().__init__()
        self.applied: Counter[str] = Counter()

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        before = self.applied.total()
        for node in nodes(model):
            layer = linear_of(node) if is_op(node, "MatMul") else None
            if layer is not None and _to_gemm(model, layer):
                self.applied["MatMul and Add to Gemm"] += 1
        return ir.passes.PassResult(model, self.applied.total() > before)


def _to_gemm(model: ir.Model, layer: Linear) -> bool:
    node, output = layer.node, layer.node.outputs[0]
    add = only_user(output)
    if rank(node.inputs[0]) != 2 or add is None or not is_op(add, "Add") or add.graph is not node.graph:
        return False
    affine = affine_of(add, output, channels=layer.channels, axis=1, rank=2)
    if affine is None:
        return False
    node.op_type = "Gemm"
    set_bias(model, layer, affine.shift)
    replace_value(add.outputs[0], output)
    return remove_if_unused(add)
