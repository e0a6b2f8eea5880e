"""In which precision every planned node runs, as OpenVINO's execution graph on this CPU shows it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx_ir as ir

from edgeq.compiler.plan import NodePlan, Plan
from edgeq.compiler.planner import ARITHMETIC
from edgeq.errors import ModelError
from edgeq.targets.base import QUANTIZED, REMOVED, UNPROVEN, NodeResult
from edgeq.targets.openvino.evidence import Kernel, kernels
from edgeq.targets.openvino.files import MODEL
from edgeq.targets.openvino.names import layer_name, names_of
from edgeq.targets.openvino.session import compile_model, properties
from edgeq.targets.openvino.settings import Settings
from edgeq.targets.openvino.stored import StoredWeights
from edgeq.targets.reference import REFERENCE

# Op of the plan → the layers that do its work, besides one of its own name.
_FAMILIES = {
    "Conv": frozenset({"Convolution", "FullyConnected", "MatMul"}),
    "ConvTranspose": frozenset({"Deconvolution"}),
    "Gemm": frozenset({"FullyConnected", "MatMul"}),
    "MatMul": frozenset({"FullyConnected", "MatMul"}),
    "Einsum": frozenset({"FullyConnected", "MatMul"}),
    "LSTM": frozenset({"RNNSeq", "RNNCell", "TensorIterator"}),
    "GRU": frozenset({"RNNSeq", "RNNCell", "TensorIterator"}),
    "RNN": frozenset({"RNNSeq", "RNNCell", "TensorIterator"}),
}
_FLOATS = ("fp32", "fp16", "bf16", "fp16-weight")


def verify(folder: Path, plan: Plan) -> list[NodeResult]:
    """One result per planned node of the artefact in ``folder``, in the plan's order.

    ``actual`` is ``int8``; ``int8-weight``, ``int4`` or ``fp16-weight`` (float arithmetic on weights stored
    so); ``fp32``, ``fp16``, ``bf16``; ``other`` (no floats); ``removed`` (no kernel of its own); or
    ``unproven`` (planned quantized, but no kernel tells).

    Raises:
        ModelError: the artefact is damaged.
        TargetError: OpenVINO cannot compile the model.
    """
    settings = Settings.read(folder)
    compiled = compile_model(folder / MODEL, properties(settings.options, 1))
    lookup = _Lookup(kernels(compiled), _nodes(folder / REFERENCE), StoredWeights(folder / MODEL))
    return [lookup.result(node) for node in plan.nodes.values()]


def _nodes(path: Path) -> dict[str, ir.Node]:
    try:
        return {node.name or "": node for node in ir.load(path).graph.all_nodes()}
    except Exception as error:  # protobuf's and onnx_ir's own exceptions
        raise ModelError(f"{path} cannot be read: {error}.", fix="Compile the model again.") from error


class _Lookup:
    """Finds the kernel that does the work of a planned node."""

    def __init__(self, found: Iterable[Kernel], nodes: dict[str, ir.Node], stored: StoredWeights) -> None:
        self._nodes = nodes
        self._stored = stored
        self._by_layer: dict[str, list[Kernel]] = {}
        for kernel in found:
            for layer in kernel.layers:
                self._by_layer.setdefault(layer, []).append(kernel)

    def result(self, plan: NodePlan) -> NodeResult:
        node = self._nodes.get(layer_name(plan.name))
        names = [layer_name(plan.name)] if node is None else list(names_of(node))
        running = {k: None for name in names for k in self._by_layer.get(name, [])}
        kernel = _best(plan.op_type, list(running))
        if kernel is None:
            return self._without_kernel(plan)
        actual = kernel.precision
        if actual == "fp32" and (form := self._stored.form(names)) is not None:
            return _result(plan, form, f"{kernel.name}, fp32 arithmetic", "")
        return _result(plan, actual, kernel.name, _reason(plan, actual))

    def _without_kernel(self, plan: NodePlan) -> NodeResult:
        if plan.precision in QUANTIZED and plan.op_type in ARITHMETIC:
            return _result(plan, UNPROVEN, "", "no kernel of OpenVINO's execution graph names it")
        return _result(plan, REMOVED, "", "optimized away or fused into a neighbour")


def _best(op_type: str, running: list[Kernel]) -> Kernel | None:
    """The kernel of the op itself; where none is of its kind, one that computes with floats or integers."""
    family = _FAMILIES.get(op_type, frozenset({op_type}))
    ranked = sorted(
        running, key=lambda kernel: (kernel.layer_type not in family, kernel.precision == "other")
    )
    return next(iter(ranked), None)


def _reason(plan: NodePlan, actual: str) -> str:
    if plan.precision in QUANTIZED and actual in _FLOATS:
        return f"OpenVINO has no {plan.precision} kernel for it here and computes it in {actual}"
    return ""


def _result(plan: NodePlan, actual: str, kernel: str, found: str) -> NodeResult:
    reason = "; ".join(part for part in (plan.reason, found) if part)
    return NodeResult(plan.name, plan.op_type, plan.precision, actual, kernel, reason, plan.asked)
