"""Every rule of explicit quantization that a model breaks, found without building."""

from __future__ import annotations

from edgeq.compiler.model import Model
from edgeq.targets.base import Finding
from edgeq.targets.tensorrt.lint.graph import Graph
from edgeq.targets.tensorrt.lint.shapes import with_shapes
from edgeq.targets.tensorrt.lint.table import RULES
from edgeq.targets.tensorrt.options import TensorRTOptions


def lint(model: Model, options: TensorRTOptions, sm: tuple[int, ...]) -> list[Finding]:
    """What TensorRT would make of ``model`` on the compute capabilities ``sm``, in the order of the graph.

    ``model`` is any ONNX graph with QuantizeLinear and DequantizeLinear; weights are not read.
    """
    graph = Graph(with_shapes(model), sm, frozenset(options.dimensions))
    order = {node: place for place, node in enumerate(graph.nodes)}
    found = []
    for number, (name, rule) in enumerate(RULES.items()):
        for problem in rule.check(graph):
            node = problem.node
            called = node.name or next((v.name for v in node.outputs if v.name), "") or ""
            finding = Finding(name, rule.outcome, called, node.op_type, problem.what, problem.mend)
            found.append((order[node], number, finding))
    return [finding for _, _, finding in sorted(found, key=lambda entry: entry[:2])]
