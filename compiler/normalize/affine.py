"""Scales and shifts per channel, as arrays, of the nodes that apply them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgeq.compiler.normalize.editing import array, get_float, get_int, is_op

Channels = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Affine:
    """y = scale · x + shift along ``channels`` channels: float64 [channels] each."""

    scale: Channels
    shift: Channels

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite(self.scale).all() and np.isfinite(self.shift).all())

    @property
    def only_shifts(self) -> bool:
        return bool((self.scale == 1).all())

    @property
    def only_scales(self) -> bool:
        return bool((self.shift == 0).all())


def affine_of(node: ir.Node, value: ir.Value, *, channels: int, axis: int, rank: int) -> Affine | None:
    """What ``node`` does to ``value``, when it is the same for all elements of a channel.

    ``axis`` (not negative) is the channel axis of ``value`` of ``rank`` dimensions. BatchNormalization in
    inference and Add, Sub, Mul, Div with a constant are understood.
    """
    if is_op(node, "BatchNormalization"):
        return _batch_normalization(node, value, channels) if axis == 1 else None
    if not is_op(node, "Add", "Sub", "Mul", "Div"):
        return None
    first, second = node.inputs
    on_left = first is value
    content = array(second if on_left else first)
    constant = None if content is None else _per_channel(content, channels, axis, rank)
    if constant is None or first is second or (not on_left and node.op_type == "Div"):
        return None
    return _binary(node.op_type, constant, on_left)


def _batch_normalization(node: ir.Node, value: ir.Value, channels: int) -> Affine | None:
    """ONNX operator BatchNormalization, inference: (x - mean) / sqrt(var + epsilon) · scale + bias."""
    if node.inputs[0] is not value or get_int(node, "training_mode", 0) or len(node.outputs) > 1:
        return None
    contents = [array(v) for v in node.inputs[1:5]]
    if any(c is None or c.size != channels for c in contents):
        return None
    gamma, beta, mean, variance = (np.asarray(c, np.float64).reshape(-1) for c in contents)
    epsilon = get_float(node, "epsilon", 1e-5)
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance + epsilon)
        return Affine(scale, beta - mean * scale)


def _per_channel(content: npt.NDArray[np.generic], channels: int, axis: int, rank: int) -> Channels | None:
    """A constant that broadcasts along ``axis`` only, as [channels]; None when it varies elsewhere."""
    if content.dtype.kind != "f" or content.ndim > rank:
        return None
    shape = (1,) * (rank - content.ndim) + content.shape
    if any(d != 1 for i, d in enumerate(shape) if i != axis) or shape[axis] not in (1, channels):
        return None
    return np.broadcast_to(content.astype(np.float64).reshape(-1), (channels,)).copy()


def _binary(op_type: str, constant: Channels, on_left: bool) -> Affine:
    ones, zeros = np.ones_like(constant), np.zeros_like(constant)
    if op_type == "Add":
        return Affine(ones, constant)
    if op_type == "Sub":
        return Affine(ones, -constant) if on_left else Affine(-ones, constant)
    if op_type == "Mul":
        return Affine(constant, zeros)
    with np.errstate(all="ignore"):
        return Affine(1 / constant, zeros)
