"""Decomposed LayerNorm and RMSNorm become LayerNormalization and RMSNormalization.

RMSNormalization exists since opset 23, so a model that has it is raised to 23: ONNX Runtime's CPU kernel runs
it as one node, and a planner then leaves it alone as one node, which int8 inside of it would ruin.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeq.calibration.types import Array
from edgeq.compiler.normalize.editing import (
    add_constant,
    array,
    get_input,
    get_int,
    integers,
    is_op,
    nodes,
    only_user,
    other_input,
    producer,
    replace_node,
    scalar,
)
from edgeq.compiler.normalize.opset import raise_opset

RMS_OPSET = 23


@dataclass(frozen=True)
class _Scaled:
    """``value / sqrt(mean(value²) + epsilon)`` over the last ``dims`` dimensions."""

    value: ir.Value
    epsilon: float
    dims: int


@dataclass(frozen=True)
class _Found:
    """A whole normalization: ``root`` is its last node, ``centered`` tells LayerNorm from RMSNorm."""

    root: ir.Node
    source: ir.Value
    scale: ir.Value | None
    bias: ir.Value | None
    epsilon: float
    dims: int
    centered: bool


class FuseNormalizationsPass(ir.passes.InPlacePass):
    """Fuse over the last dimensions, with or without scale and bias, in float32.

    Requires: canonical constants, inferred shapes, equal nodes merged.
    """

    def __init__(self) -> None:
        super().__init__()
        self.applied: Counter[str] = Counter()

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        before = self.applied.total()
        for node in nodes(model):
            found = None if node.graph is None else _normalization(node) or _keras_layer_norm(node)
            if found is not None and _replace(model, found):
                self.applied[f"fuse {'LayerNormalization' if found.centered else 'RMSNormalization'}"] += 1
        return ir.passes.PassResult(model, self.applied.total() > before)


def _normalization(node: ir.Node) -> _Found | None:
    """x/std or (x-mean)/std, then · scale, then + bias."""
    scaled = _scaled(node)
    if scaled is None:
        return None
    centered = producer(scaled.value, "Sub")
    source = None if centered is None else _centered(centered, scaled.dims)
    root, scale, bias = node, None, None
    user = _constant_user(root, "Mul", scaled.dims)
    if user is not None:
        root, scale = user
        user = _constant_user(root, "Add", scaled.dims)
        if user is not None and source is not None:
            root, bias = user
    value = scaled.value if source is None else source
    return _Found(root, value, scale, bias, scaled.epsilon, scaled.dims, source is not None)


def _constant_user(node: ir.Node, op_type: str, dims: int) -> tuple[ir.Node, ir.Value] | None:
    """The only reader of the node when it is ``op_type`` with a constant over the last dimensions."""
    user = only_user(node.outputs[0])
    if not is_op(user, op_type) or user is None:
        return None
    constant = other_input(user, node.outputs[0])
    if constant is None or _over_last(array(constant), node.outputs[0], dims) is None:
        return None
    return user, constant


def _over_last(content: Array | None, value: ir.Value, dims: int) -> Array | None:
    """A constant as an array of the last ``dims`` dimensions of ``value``, None when it has no such form."""
    shape = value.shape
    if content is None or shape is None or content.ndim > len(shape):
        return None
    last = shape[len(shape) - dims :]
    if not all(isinstance(d, int) for d in last):
        return None
    padded = content.reshape((1,) * (len(shape) - content.ndim) + content.shape)
    if any(d != 1 for d in padded.shape[: len(shape) - dims]):
        return None
    wanted = tuple(int(d) for d in last if isinstance(d, int))
    tail = padded.shape[len(shape) - dims :]
    if any(small not in (1, large) for small, large in zip(tail, wanted, strict=True)):
        return None
    return np.ascontiguousarray(np.broadcast_to(padded.reshape(tail), wanted))


def _scaled(node: ir.Node) -> _Scaled | None:
    if is_op(node, "Div"):
        return _matched(node.inputs[0], _root_of_variance(node.inputs[1]))
    if not is_op(node, "Mul"):
        return None
    for value, factor in (tuple(node.inputs), tuple(reversed(node.inputs))):
        found = _matched(value, _inverse_root(factor))
        if found is not None:
            return found
    return None


def _matched(value: ir.Value | None, variance: _Scaled | None) -> _Scaled | None:
    return variance if variance is not None and variance.value is value else None


def _inverse_root(value: ir.Value | None) -> _Scaled | None:
    """1/sqrt(mean(v²) + epsilon)."""
    node = producer(value, "Reciprocal", "Div", "Pow")
    if node is None:
        return None
    if node.op_type == "Reciprocal":
        return _root_of_variance(node.inputs[0])
    if node.op_type == "Div":
        return _root_of_variance(node.inputs[1]) if scalar(node.inputs[0]) == 1 else None
    return _variance(node.inputs[0]) if scalar(node.inputs[1]) == -0.5 else None


def _root_of_variance(value: ir.Value | None) -> _Scaled | None:
    node = producer(value, "Sqrt", "Pow")
    if node is None or (node.op_type == "Pow" and scalar(node.inputs[1]) != 0.5):
        return None
    return _variance(node.inputs[0])


def _variance(value: ir.Value | None) -> _Scaled | None:
    """mean(v²) + epsilon."""
    add = producer(value, "Add")
    if add is None:
        return None
    for mean, constant in (tuple(add.inputs), tuple(reversed(add.inputs))):
        epsilon = scalar(constant)
        reduce = producer(mean, "ReduceMean")
        if epsilon is not None and reduce is not None:
            square, dims = _squared(reduce.inputs[0]), _last_dims(reduce)
            return None if square is None or dims is None else _Scaled(square, epsilon, dims)
    return None


def _squared(value: ir.Value | None) -> ir.Value | None:
    node = producer(value, "Mul", "Pow")
    if node is None:
        return None
    if node.op_type == "Pow":
        return node.inputs[0] if scalar(node.inputs[1]) == 2 else None
    return node.inputs[0] if node.inputs[0] is node.inputs[1] else None


def _last_dims(reduce: ir.Node) -> int | None:
    """How many last dimensions a ReduceMean averages, keeping them; None when it is not that."""
    axes, value = integers(get_input(reduce, 1)), reduce.inputs[0]
    if axes is None or not axes or not get_int(reduce, "keepdims", 1):
        return None
    if value is None or value.shape is None:
        return len(axes) if sorted(axes) == list(range(-len(axes), 0)) else None
    count = len(value.shape)
    positive = sorted(a % count for a in axes)
    return len(axes) if positive == list(range(count - len(axes), count)) else None


def _centered(sub: ir.Node, dims: int) -> ir.Value | None:
    """The x of ``x - mean(x)``."""
    mean = producer(sub.inputs[1], "ReduceMean")
    if mean is None or mean.inputs[0] is not sub.inputs[0] or _last_dims(mean) != dims:
        return None
    return sub.inputs[0]


def _keras_layer_norm(node: ir.Node) -> _Found | None:
    """x·s + (bias - mean·s) with s = scale / sqrt(variance + epsilon)."""
    if not is_op(node, "Add"):
        return None
    for first, second in (tuple(node.inputs), tuple(reversed(node.inputs))):
        product, shift = producer(first, "Mul"), producer(second, "Sub")
        found = None if product is None or shift is None else _keras_parts(node, product, shift)
        if found is not None:
            return found
    return None


def _keras_parts(root: ir.Node, product: ir.Node, shift: ir.Node) -> _Found | None:
    bias, mean_product = shift.inputs[0], producer(shift.inputs[1], "Mul")
    if mean_product is None or array(bias) is None:
        return None
    for source, factor in (tuple(product.inputs), tuple(reversed(product.inputs))):
        mean = None if factor is None else other_input(mean_product, factor)
        reduce = producer(mean, "ReduceMean")
        if reduce is None or reduce.inputs[0] is not source or source is None:
            continue
        scale, variance = _keras_factor(factor)
        sub = None if variance is None else producer(variance.value, "Sub")
        if variance is None or sub is None or _centered(sub, variance.dims) is not source:
            continue
        return _Found(root, source, scale, bias, variance.epsilon, variance.dims, centered=True)
    return None


def _keras_factor(factor: ir.Value | None) -> tuple[ir.Value | None, _Scaled | None]:
    plain = _inverse_root(factor)
    mul = producer(factor, "Mul")
    if plain is not None or mul is None:
        return None, plain
    for inverse, scale in (tuple(mul.inputs), tuple(reversed(mul.inputs))):
        variance = _inverse_root(inverse)
        if variance is not None and array(scale) is not None:
            return scale, variance
    return None, None


def _replace(model: ir.Model, found: _Found) -> bool:
    shape = found.source.shape
    if found.source.dtype != ir.DataType.FLOAT or shape is None:
        return False
    ones = np.ones([1] * found.dims, np.float32) if found.scale is None else array(found.scale)
    scale = _over_last(ones, found.source, found.dims)
    bias = None if found.bias is None else _over_last(array(found.bias), found.source, found.dims)
    if scale is None or (found.bias is not None and bias is None):
        return False
    inputs = [found.source, _reuse(model, found.scale, scale, f"{found.root.name}/scale")]
    if bias is not None:
        inputs.append(_reuse(model, found.bias, bias, f"{found.root.name}/bias"))
    op_type = "LayerNormalization" if found.centered else "RMSNormalization"
    attributes = {"axis": -found.dims, "epsilon": found.epsilon}
    if not found.centered:
        raise_opset(model, RMS_OPSET)
    replace_node(found.root, ir.node(op_type, inputs, attributes=attributes))
    return True


def _reuse(model: ir.Model, old: ir.Value | None, content: Array, hint: str) -> ir.Value:
    """The old constant when it already has this shape, else a new one."""
    if old is not None and old.shape is not None and tuple(old.shape) == content.shape:
        return old
    return add_constant(model, content, hint)
