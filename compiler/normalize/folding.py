"""Constant folding: what depends on constants alone is computed once, by the runtime itself.

All foldable nodes of a graph are run in one ONNX Runtime session without optimizations, so that folded
numbers are the runtime's numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from edgeq.calibration.types import Array
from edgeq.compiler.normalize.editing import add_constant, dims, is_constant
from edgeq.compiler.subgraphs import has_subgraphs

# Elements of a folded tensor that is larger than the constants that disappear with it.
SIZE_LIMIT = 1 << 14
# What onnxruntime raises when it cannot load or run a model; they have no common base class.
RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    runtime.Fail,
    runtime.InvalidArgument,
    runtime.InvalidGraph,
    runtime.InvalidProtobuf,
    runtime.NotImplemented,
    runtime.RuntimeException,
)
# Nothing in between may be this much larger than its inputs, even if it becomes small again.
_GROWTH = 4
_NEVER = frozenset(
    {
        # They carry the quantization of a weight.
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear",
        # Not the same twice.
        "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli",
        "Dropout",
        # Constants already.
        "Constant",
    }
)  # fmt: skip
# Their output's size depends on the data but is never far above the input's.
_SELECTING = frozenset({"NonZero", "Unique", "Compress", "NonMaxSuppression"})
_TENSOR_DTYPES = frozenset(
    {
        ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BOOL,
        ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64,
        ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64,
    }
)  # fmt: skip


class FoldConstantsPass(ir.passes.InPlacePass):
    """Replace nodes whose inputs are all constants by their results.

    Requires: canonical constants, inferred shapes. Ensures: no tensor above ``SIZE_LIMIT`` elements is made
    unless constants at least as large disappear with it, so the model does not grow.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for graph in list(model.graphs()):
            modified = _fold_graph(model, graph) or modified
        return ir.passes.PassResult(model, modified)


def _fold_graph(model: ir.Model, graph: ir.Graph) -> bool:
    chosen: list[ir.Node] = []
    for group in _connected(_candidates(graph)):
        chosen.extend(group if _shrinks(group) else _small_only(group))
    order = {node: index for index, node in enumerate(graph)}
    chosen.sort(key=lambda node: order[node])
    frontier = _frontier(chosen)
    results = _evaluate(model, chosen, frontier) if frontier else []
    for value, content in results:
        value.replace_all_uses_with(add_constant(model, content, value.name or "constant"))
    return bool(results)


def _candidates(graph: ir.Graph) -> list[ir.Node]:
    found: list[ir.Node] = []
    known: set[ir.Value] = set()
    for node in graph:
        if _can_fold(node, known):
            found.append(node)
            known.update(node.outputs)
    return found


def _can_fold(node: ir.Node, known: set[ir.Value]) -> bool:
    if node.domain or node.op_type in _NEVER or not node.inputs:
        return False
    if has_subgraphs(node):
        return False
    if not all(v is None or v in known or is_constant(v) for v in node.inputs):
        return False
    tensors = [*_inputs(node), *_used_outputs(node)]
    if any(v.is_graph_output() for v in node.outputs) or any(v.dtype not in _TENSOR_DTYPES for v in tensors):
        return False
    sizes = [_size(v) for v in _used_outputs(node)]
    total = sum(_size(v) or 0 for v in _inputs(node))
    if any(size is None for size in sizes):
        return node.op_type in _SELECTING and total <= SIZE_LIMIT
    return sum(size or 0 for size in sizes) <= max(SIZE_LIMIT, _GROWTH * total)


def _connected(candidates: Sequence[ir.Node]) -> list[list[ir.Node]]:
    """Groups of candidates that share values, each in graph order."""
    group_of: dict[ir.Value, list[ir.Node]] = {}
    groups: list[list[ir.Node]] = []
    for node in candidates:
        touched = {id(group_of[v]): group_of[v] for v in _inputs(node) if v in group_of}
        merged = [other for group in touched.values() for other in group] + [node]
        groups = [group for group in groups if id(group) not in touched] + [merged]
        for member in merged:
            group_of.update(dict.fromkeys([*_inputs(member), *member.outputs], merged))
    return groups


def _shrinks(group: Sequence[ir.Node]) -> bool:
    """Whether what is made is small, or not larger than the constants that nothing else reads."""
    members = set(group)
    constants = {v for node in group for v in _inputs(node) if is_constant(v)}
    freed = sum(_size(v) or 0 for v in constants if all(use.node in members for use in v.uses()))
    made = sum(_size(v) or 0 for v in _frontier(group))
    return made <= max(SIZE_LIMIT, freed)


def _small_only(group: Sequence[ir.Node]) -> list[ir.Node]:
    """The part of a group that makes small tensors of constants and of other small ones."""
    kept: list[ir.Node] = []
    known: set[ir.Value] = set()
    for node in group:
        small = sum(_size(v) or 0 for v in _used_outputs(node)) <= SIZE_LIMIT
        if small and all(is_constant(v) or v in known for v in _inputs(node)):
            kept.append(node)
            known.update(node.outputs)
    return kept


def _frontier(chosen: Sequence[ir.Node]) -> list[ir.Value]:
    """The values of these nodes that others read."""
    members = set(chosen)
    return [v for node in chosen for v in node.outputs if any(use.node not in members for use in v.uses())]


def _inputs(node: ir.Node) -> list[ir.Value]:
    return [v for v in node.inputs if v is not None]


def _used_outputs(node: ir.Node) -> list[ir.Value]:
    return [v for v in node.outputs if v.uses()]


def _size(value: ir.Value) -> int | None:
    if value.shape is None or not value.shape.is_static():
        return None
    return math.prod([d for d in value.shape if isinstance(d, int)])


def _evaluate(
    model: ir.Model, chosen: Sequence[ir.Node], frontier: Sequence[ir.Value]
) -> list[tuple[ir.Value, Array]]:
    """Run all nodes at once; when the runtime cannot, node by node, leaving out what it cannot run."""
    try:
        return list(zip(frontier, _run(model, chosen, frontier), strict=True))
    except RUNTIME_ERRORS:
        if len(chosen) == 1:
            return []
    for node in chosen:
        if all(v is None or is_constant(v) for v in node.inputs):
            outputs = [v for v in node.outputs if v.uses()]
            results = _evaluate(model, [node], outputs)
            if results:
                return results
    return []


def _run(model: ir.Model, chosen: Sequence[ir.Node], frontier: Sequence[ir.Value]) -> list[Array]:
    """The values of ``frontier``. Constants are fed as inputs, so that weights do not go through protobuf."""
    copies: dict[ir.Value, ir.Value] = {}
    feeds: dict[str, Array] = {}

    def copy(value: ir.Value | None) -> ir.Value | None:
        if value is None or value in copies:
            return None if value is None else copies[value]
        assert value.const_value is not None
        name = f"c{len(feeds)}"
        tensor = value.const_value
        copies[value] = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(dims(tensor)))
        feeds[name] = np.asarray(tensor.numpy())
        return copies[value]

    fresh = []
    for node in chosen:
        inputs = [copy(v) for v in node.inputs]
        new = ir.Node("", node.op_type, inputs, list(node.attributes.values()), num_outputs=len(node.outputs))
        for old, made in zip(node.outputs, new.outputs, strict=True):
            copies[old] = made
            made.name = f"v{len(copies)}"
            made.type = old.type
        fresh.append(new)
    given = [v for v in copies.values() if v.producer() is None]
    graph = ir.Graph(
        given,
        [copies[v] for v in frontier],
        nodes=fresh,
        opset_imports={"": model.opset_imports[""]},
        name="fold",
    )
    return _session(ir.Model(graph, ir_version=model.ir_version)).run(None, feeds)  # type: ignore[no-any-return]


def _session(model: ir.Model) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    content = ir.to_proto(model).SerializeToString()
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
