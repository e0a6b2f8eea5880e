"""Nodes whose inputs are all known at compile time: their results, computed by ONNX Runtime itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from edgeq.calibration.types import Array
from edgeq.compiler.normalize.folding import RUNTIME_ERRORS
from edgeq.targets.coreml.frontend.node import OnnxNode

_IR_VERSION = 10
_FATAL = 4


def folded(node: OnnxNode) -> list[Array | None] | None:
    """The node's outputs as numpy arrays; None when an input is only known at run time.

    Fixing a dynamic dimension makes whole chains of shape arithmetic constant that the normalized model
    still has to compute.
    """
    known = _known_inputs(node)
    if known is None:
        return None
    results = _evaluate(node.node, known)
    if results is None:
        return None
    for index in range(len(node.node.inputs)):
        node.constant(index)
    for name in node.node.attributes:
        node.attribute(name)
    return results


def _known_inputs(node: OnnxNode) -> list[Array | None] | None:
    found: list[Array | None] = []
    for value in node.node.inputs:
        array = None if value is None else node.lowering.constant(value)
        if value is not None and (array is None or array.dtype.kind not in "fiub"):
            return None
        found.append(array)
    return found


def _evaluate(node: ir.Node, arrays: Sequence[Array | None]) -> list[Array | None] | None:
    feeds = {f"input{index}": array for index, array in enumerate(arrays) if array is not None}
    wanted = [index for index, output in enumerate(node.outputs) if output.name]
    try:
        session = _session(_single(node, arrays))
        results = session.run([f"output{index}" for index in wanted], feeds)
    except RUNTIME_ERRORS:
        return None
    by_index = dict(zip(wanted, results, strict=True))
    return [np.asarray(by_index[i]) if i in by_index else None for i in range(len(node.outputs))]


def _session(model: ir.Model) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = _FATAL
    content = ir.to_proto(model).SerializeToString()
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _single(node: ir.Node, arrays: Sequence[Array | None]) -> ir.Model:
    inputs = [None if array is None else _typed(f"input{i}", array) for i, array in enumerate(arrays)]
    copy = ir.Node(node.domain, node.op_type, inputs, list(node.attributes.values()), outputs=_outputs(node))
    imports = dict(node.graph.opset_imports) if node.graph is not None else {}
    graph = ir.Graph(
        [value for value in inputs if value is not None],
        [output for output in copy.outputs if output.name],
        nodes=[copy],
        opset_imports=imports,
        name="fold",
    )
    return ir.Model(graph, ir_version=_IR_VERSION)


def _typed(name: str, array: Array) -> ir.Value:
    dtype = ir.TensorType(ir.DataType.from_numpy(array.dtype))
    return ir.Value(name=name, type=dtype, shape=ir.Shape(array.shape))


def _outputs(node: ir.Node) -> list[ir.Value]:
    return [
        ir.Value(name=f"output{index}" if output.name else "", type=output.type)
        for index, output in enumerate(node.outputs)
    ]
