"""Decomposed scaled dot-product attention becomes one Attention operator (ai.onnx, opset 23).

Not part of :func:`normalize`: INT8 kernels exist for the two MatMuls but not for Attention. A target that has
a fast float Attention asks for it by :func:`fuse_attention`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from edgeq.compiler.model import Model
from edgeq.compiler.normalize.cleanup import RemoveNoOpsPass, RemoveUnusedPass
from edgeq.compiler.normalize.editing import (
    add_constant,
    get_int,
    insert_before,
    is_constant,
    nodes,
    only_user,
    producer,
    rank,
    replace_node,
    scalar,
)
from edgeq.compiler.normalize.names import UniqueNamesPass
from edgeq.compiler.normalize.opset import raise_opset
from edgeq.compiler.normalize.rearrangement import MergeRearrangementsPass
from edgeq.compiler.normalize.shapes import InferShapesPass, declared_shapes, restore_declared
from edgeq.compiler.normalize.symbolic import dimensions, same

ATTENTION_OPSET = 23


@dataclass(frozen=True)
class Attention:
    """Softmax(scale · query · keys + mask) · values; ``keys`` is [batch, heads, dim, sequence]."""

    query: ir.Value
    keys: ir.Value
    values: ir.Value
    mask: ir.Value | None
    scale: float


class FuseAttentionPass(ir.passes.InPlacePass):
    """MatMul, scale, mask, Softmax, MatMul on float32 tensors of rank 4 become Attention.

    Requires: a normalized model. Values in between that something else reads keep the model as it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.applied: Counter[str] = Counter()

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        before = self.applied.total()
        for node in nodes(model):
            softmax = producer(node.inputs[0], "Softmax") if node.op_type == "MatMul" else None
            found = None if softmax is None else find_attention(node, softmax)
            if found is not None:
                _replace(model, node, found)
                self.applied["fuse Attention"] += 1
        return ir.passes.PassResult(model, self.applied.total() > before)


def fuse_attention(model: Model) -> tuple[Model, int]:
    """A copy of a normalized ``model`` with Attention operators, and how many."""
    changed = model.ir.clone()
    declared = declared_shapes(changed)
    fusion = FuseAttentionPass()
    for step in (
        InferShapesPass(),
        fusion,
        MergeRearrangementsPass(),
        RemoveNoOpsPass(),
        RemoveUnusedPass(),
        UniqueNamesPass(),
        InferShapesPass(),
    ):
        step(changed)
    restore_declared(changed, declared)
    return replace(model, ir=changed), fusion.applied.total()


def find_attention(node: ir.Node, softmax: ir.Node) -> Attention | None:
    """The attention that ends in the product ``node`` of the probabilities ``softmax``, None: it is none."""
    values = node.inputs[1]
    if get_int(softmax, "axis", -1) not in (-1, 3) or only_user(softmax.outputs[0]) is not node:
        return None
    scores, mask = _masked(softmax)
    product, scale = _scaled(scores)
    if product is None or values is None:
        return None
    query, keys = product.inputs
    if query is None or keys is None or is_constant(query) or is_constant(keys):
        return None
    if any(rank(v) != 4 or v.dtype != ir.DataType.FLOAT for v in (query, keys, values)):
        return None
    return Attention(query, keys, values, mask, scale)


def _masked(softmax: ir.Node) -> tuple[ir.Value | None, ir.Value | None]:
    """The scores without the mask that is added to them, and the mask."""
    scores = softmax.inputs[0]
    add = producer(scores, "Add")
    if add is None or scores is None or only_user(scores) is not softmax:
        return scores, None
    for first, second in (tuple(add.inputs), tuple(reversed(add.inputs))):
        if _scaled(first)[0] is not None and second is not None and second.dtype == ir.DataType.FLOAT:
            # Attention broadcasts a mask of rank 2 to 4 from the right.
            return (first, second) if (rank(second) or 0) >= 2 else (None, None)
    return None, None


def _scaled(scores: ir.Value | None) -> tuple[ir.Node | None, float]:
    """The MatMul that makes the scores, and the number that they are multiplied with."""
    if scores is None or len(scores.uses()) != 1 or scores.is_graph_output():
        return None, 1.0
    scaling = producer(scores, "Mul", "Div")
    if scaling is None:
        return producer(scores, "MatMul"), 1.0
    number = scalar(scaling.inputs[1])
    source = scaling.inputs[0]
    if scaling.op_type == "Mul" and number is None:
        number, source = scalar(scaling.inputs[0]), scaling.inputs[1]
    if not number or source is None or only_user(source) is not scaling:
        return None, 1.0
    return producer(source, "MatMul"), number if scaling.op_type == "Mul" else 1 / number


def _replace(model: ir.Model, node: ir.Node, found: Attention) -> None:
    keys = insert_before(node, "Transpose", [found.keys], perm=[0, 1, 3, 2])
    keys.dtype = ir.DataType.FLOAT
    inputs = [found.query, keys, found.values]
    if found.mask is not None:
        inputs.append(_full_mask(model, node, found.mask, found.query))
    raise_opset(model, ATTENTION_OPSET)
    replace_node(node, ir.node("Attention", inputs, attributes={"scale": found.scale}))


def _full_mask(model: ir.Model, node: ir.Node, mask: ir.Value, query: ir.Value) -> ir.Value:
    """The mask with one row per query: ONNX Runtime's kernel does not broadcast rows."""
    rows, queries = dimensions(mask), dimensions(query)
    if rows is not None and queries is not None and same(rows[-2], queries[2]):
        return mask
    ones = add_constant(model, np.array([1, 1]), f"{node.name}/ones")
    one = add_constant(model, np.array([1]), f"{node.name}/one")
    count = insert_before(node, "Shape", [query], start=2, end=3)
    shape = insert_before(node, "Concat", [ones, count, one], axis=0)
    return insert_before(node, "Expand", [mask, shape])
