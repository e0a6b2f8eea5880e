"""One form for constants: initializers of the main graph, each content once, none of them a graph input."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import (
    LiftConstantsToInitializersPass,
    LiftSubgraphInitializersToMainGraphPass,
    RemoveInitializersFromInputsPass,
)

from edgeq.calibration.types import Array
from edgeq.compiler.normalize.editing import dims, is_op, nodes

# Tensors of the same type and shape are compared in full only when their first elements agree.
_SAMPLE = 256
_CHUNK = 1 << 22


class CanonicalConstantsPass(ir.passes.InPlacePass):
    """Constant nodes, initializers that are inputs or belong to a subgraph become main-graph initializers.

    Requires: unique value names, no functions. Ensures: a Constant node is left only as a graph output.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        for node in nodes(model):
            if is_op(node, "Constant"):
                _detach(node)
        passes = ir.passes.Sequential(
            RemoveInitializersFromInputsPass(),
            LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            LiftSubgraphInitializersToMainGraphPass(),
        )
        modified = passes(model).modified
        for value in model.graph.initializers.values():
            if value.const_value is not None:
                value.type = ir.TensorType(value.const_value.dtype)
                value.shape = ir.Shape(dims(value.const_value))
        return ir.passes.PassResult(model, modified)


def _detach(node: ir.Node) -> None:
    """An initializer's tensor gets its value's name, but this one belongs to the user's model too."""
    attribute = node.attributes.get("value")
    if attribute is None or attribute.type != ir.AttributeType.TENSOR:
        return
    tensor = attribute.as_tensor()
    if tensor.dtype == ir.DataType.STRING or isinstance(tensor, ir.LazyTensor):
        return
    wrapper = ir.LazyTensor(lambda: tensor, dtype=tensor.dtype, shape=ir.Shape(dims(tensor)), cache=True)
    node.attributes["value"] = ir.AttrTensor("value", wrapper)


class DeduplicateConstantsPass(ir.passes.InPlacePass):
    """Initializers of equal type, shape and bytes become one; the first in order stays.

    Weights are read only where another of the same type and shape starts with the same elements.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        groups: dict[object, list[ir.Value]] = {}
        for value in model.graph.initializers.values():
            if not value.is_graph_output() and value.const_value is not None:
                groups.setdefault((value.const_value.dtype, dims(value.const_value)), []).append(value)
        merged = sum(_merge(model, group) for group in groups.values() if len(group) > 1)
        return ir.passes.PassResult(model, bool(merged))


def _merge(model: ir.Model, group: Iterable[ir.Value]) -> int:
    kept: dict[bytes, list[ir.Value]] = {}
    count = 0
    for value in group:
        if value.dtype == ir.DataType.STRING:
            continue
        same = kept.setdefault(_flat(value)[:_SAMPLE].tobytes(), [])
        twin = next((other for other in same if _same_bytes(_flat(value), _flat(other))), None)
        if twin is None:
            same.append(value)
            continue
        value.replace_all_uses_with(twin)
        model.graph.initializers.pop(value.name or "")
        count += 1
    return count


def _flat(value: ir.Value) -> Array:
    assert value.const_value is not None
    return np.ascontiguousarray(value.const_value.numpy()).reshape(-1)


def _same_bytes(a: Array, b: Array) -> bool:
    starts = range(0, a.size, _CHUNK)
    return all(a[i : i + _CHUNK].tobytes() == b[i : i + _CHUNK].tobytes() for i in starts)
