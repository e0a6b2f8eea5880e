"""In which precision every planned node runs, as OpenVINO's execution graph on this CPU shows it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx_ir as ir

from edgeq.compiler.plan import NodePlan, Plan
from edgeq.compiler.planner import ARITHMETIC
from edgeq.errors import ModelError
from edgeq.targets.base import REMOVED, UNPROVEN, NodeResult
from edgeq.targets.capabilities import QUANTIZED
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
        kernels_found = list(found)
        known = {name for node in nodes.values() for name in names_of(node)}
        self._unnamed = [
            kernel for kernel in kernels_found if _may_hide(kernel) and not kernel.layers & known
        ]
        for kernel in kernels_found:
            for layer in kernel.layers:
                self._by_layer.setdefault(layer, []).append(kernel)

    def result(self, plan: NodePlan) -> NodeResult:
        node = self._nodes.get(layer_name(plan.name))
        names = [layer_name(plan.name)] if node is None else list(names_of(node))
        kernel = _best(plan.op_type, self._running(names)) or self._of_reader(plan, node)
        if kernel is None:
            return self._without_kernel(plan)
        actual = kernel.precision
        if actual == "fp32" and (form := self._stored.form(names)) is not None:
            return _result(plan, form, f"{kernel.name}, fp32 arithmetic", "")
        return _result(plan, actual, kernel.name, _reason(plan, actual))

    def _running(self, names: Iterable[str]) -> list[Kernel]:
        return list({kernel: None for name in names for kernel in self._by_layer.get(name, [])})

    def _of_reader(self, plan: NodePlan, node: ir.Node | None) -> Kernel | None:
        """A product that was fused with the addition of its bias may be listed under its name alone."""
        if node is None or plan.op_type not in ARITHMETIC:
            return None
        readers = [reader for reader in node.outputs[0].consumers() if reader.op_type not in ARITHMETIC]
        running = self._running(name for reader in readers for name in names_of(reader))
        own = [kernel for kernel in running if kernel.layer_type in _FAMILIES[plan.op_type]]
        return next(iter(own), None)

    def _without_kernel(self, plan: NodePlan) -> NodeResult:
        if plan.precision in QUANTIZED and plan.op_type in ARITHMETIC and self._unnamed:
            return _result(
                plan, UNPROVEN, "", "no kernel names it, and one of unknown origin computes in float"
            )
        return _result(plan, REMOVED, "", "optimized away or fused into a neighbour")


def _may_hide(kernel: Kernel) -> bool:
    """Whether the kernel could be a planned INT8 node that runs in float."""
    return kernel.precision in _FLOATS and any(kernel.layer_type in family for family in _FAMILIES.values())


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
