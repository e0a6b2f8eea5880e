"""What really runs: every planned node, looked up in the graph that ONNX Runtime optimized for this CPU."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnx_ir as ir

from edgeq.compiler.plan import NodePlan, Plan
from edgeq.targets.base import NodeResult
from edgeq.targets.onnxruntime.session import open_session, session_options

_INT8 = {"QLinearConv", "QGemm", "QLinearMatMul", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"}


def optimized_graph(path: Path) -> ir.Model:
    """The graph that ONNX Runtime executes for the model at ``path``, weights not read."""
    with TemporaryDirectory(prefix="edgeq-") as folder:
        target = Path(folder) / "optimized.onnx"
        options = session_options(1)
        options.optimized_model_filepath = str(target)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "w.bin")
        open_session(path, options)
        return ir.from_proto(onnx.load(target, load_external_data=False))


def verify(path: Path, plan: Plan) -> list[NodeResult]:
    """One result per planned node."""
    real = {node.name: node for node in optimized_graph(path).graph.all_nodes() if node.name}
    return [_result(node, real.get(node.name)) for node in plan.nodes.values()]


def _result(planned: NodePlan, real: ir.Node | None) -> NodeResult:
    if real is None:
        return NodeResult(
            planned.name, planned.op_type, planned.precision, "removed", "", planned.reason, planned.asked
        )
    actual = "int8" if real.op_type in _INT8 else "fp32"
    return NodeResult(
        planned.name, planned.op_type, planned.precision, actual, real.op_type, planned.reason, planned.asked
    )
