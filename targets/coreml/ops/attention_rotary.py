"""Rotary position embeddings: ONNX's RotaryEmbedding and ONNX Runtime's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeq.targets.coreml.frontend.lowering import known_dimension
from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.attention_masks import combine, counting
from edgeq.targets.coreml.ops.elementwise import INTEGERS
from edgeq.targets.coreml.ops.tensors import reshape, size
from edgeq.targets.coreml.toolkit import builder


@dataclass(frozen=True)
class Angles:
    """Cosines and sines [batch, sequence, width], or [sequence, width] when all samples have the same."""

    cosine: Var
    sine: Var

    @property
    def width(self) -> int | None:
        """Half the number of elements that are rotated."""
        return known_dimension(self.cosine.shape[-1])

    def along(self, axis: int) -> Angles:
        """For a tensor [batch, …, width] of rank 4 with its heads on ``axis`` (1 or 2)."""
        mb, at = builder(), axis if self.cosine.rank == 3 else axis - 1
        return Angles(mb.expand_dims(x=self.cosine, axes=[at]), mb.expand_dims(x=self.sine, axes=[at]))


def rotary_embedding(node: OnnxNode) -> Var:
    """RotaryEmbedding of opset 23."""
    node.require_float(0, 1, 2)
    cosine, sine = node.input(1), node.input(2)
    if node.has_input(3):
        cosine, sine = _rows(node, cosine, 3), _rows(node, sine, 3)
    return _rotated_input(node, Angles(cosine, sine))


def microsoft_rotary_embedding(node: OnnxNode) -> Var:
    """RotaryEmbedding (com.microsoft): input, position_ids, cos_cache, sin_cache."""
    node.require_float(0, 2, 3)
    if node.attribute("is_packed_batching", 0):
        node.refuse("is_packed_batching=1 is not supported")
    if node.attribute("scale", 1.0) != 1.0:
        node.refuse("scale is not 1")
    if node.rank(1) == 2:
        return _rotated_input(node, Angles(_rows(node, node.input(2), 1), _rows(node, node.input(3), 1)))
    return _rotated_input(node, _angles_from(node))


def _angles_from(node: OnnxNode) -> Angles:
    """The angles of consecutive positions from the one in position_ids on."""
    node.require_dtype(INTEGERS, 1)
    x, first = node.input(0), node.constant(1)
    steps = counting(size(x, 1 if x.rank == 3 else 2))
    start = node.input(1) if first is None else first.astype(np.int32).reshape(1)
    indices = combine("add", steps, start)
    mb = builder()
    return Angles(
        mb.gather(x=node.input(2), indices=indices, axis=0),
        mb.gather(x=node.input(3), indices=indices, axis=0),
    )


def _rows(node: OnnxNode, cache: Var, positions: int) -> Var:
    node.require_dtype(INTEGERS, positions)
    if cache.rank != 2 or node.rank(positions) != 2:
        node.refuse("position_ids or the caches of cosines and sines do not have rank 2")
    return builder().gather(x=cache, indices=node.input(positions), axis=0)


def _rotated_input(node: OnnxNode, angles: Angles) -> Var:
    x, heads = node.input(0), node.attribute("num_heads", 0)
    width = node.attribute("rotary_embedding_dim", 0)
    interleaved = bool(node.attribute("interleaved", 0))
    if angles.width is None or (width and width != 2 * angles.width):
        node.refuse("rotary_embedding_dim is not twice the width of the caches")
    if x.rank == 4:
        _check_head(node, known_dimension(x.shape[3]), angles, width)
        return rotate(x, angles.along(1), interleaved=interleaved)
    hidden = known_dimension(x.shape[-1])
    if x.rank != 3 or hidden is None:
        node.refuse("its input has neither rank 3 nor 4, or a dynamic hidden size")
    head = hidden // heads if heads else 2 * angles.width
    _check_head(node, head, angles, width)
    split = reshape(x, [size(x, 0), size(x, 1), hidden // head, head])
    turned = rotate(split, angles.along(2), interleaved=interleaved)
    return reshape(turned, [size(x, 0), size(x, 1), hidden])


def _check_head(node: OnnxNode, head: int | None, angles: Angles, width: int) -> None:
    """The whole head is rotated unless rotary_embedding_dim says otherwise."""
    if head is None or (not width and head != 2 * (angles.width or 0)):
        node.refuse(f"the head size {head} is not twice the width of the caches, {angles.width}")


def rotate(x: Var, angles: Angles, *, interleaved: bool) -> Var:
    """The first 2 · width elements of the last axis, as pairs, turned by the angles; the rest is kept."""
    mb = builder()
    width, head = int(angles.cosine.shape[-1]), int(x.shape[-1])
    parts = [2 * width] if head == 2 * width else [2 * width, head - 2 * width]
    turning, *rest = [x] if len(parts) == 1 else mb.split(x=x, split_sizes=parts, axis=-1)
    first, second = _pairs(turning, interleaved=interleaved)
    real = mb.sub(x=mb.mul(x=first, y=angles.cosine), y=mb.mul(x=second, y=angles.sine))
    imaginary = mb.add(x=mb.mul(x=first, y=angles.sine), y=mb.mul(x=second, y=angles.cosine))
    if not interleaved:
        return mb.concat(values=[real, imaginary, *rest], axis=-1)
    woven = mb.stack(values=[real, imaginary], axis=-1)
    turned = reshape(woven, [*(size(turning, axis) for axis in range(3)), 2 * width])
    return mb.concat(values=[turned, *rest], axis=-1) if rest else turned


def _pairs(x: Var, *, interleaved: bool) -> list[Var]:
    """First and second element of every pair: neighbours when interleaved, the two halves otherwise."""
    mb = builder()
    if not interleaved:
        return list(mb.split(x=x, num_splits=2, axis=-1))
    everything = [True] * 4
    return [
        mb.slice_by_index(
            x=x,
            begin=[0, 0, 0, start],
            end=[0] * 4,
            stride=[1, 1, 1, 2],
            begin_mask=[True, True, True, False],
            end_mask=everything,
        )
        for start in (0, 1)
    ]
