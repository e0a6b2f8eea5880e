"""In which precision every planned node is in a written package, read from its program.

The lowering names MIL operations after the ONNX values they compute, and the passes keep these names with
endings of their own (``_cast_fp16``). A node is the operations between its named result and its named inputs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

import onnx_ir as ir

from edgeq.compiler.plan import NodePlan, Plan
from edgeq.targets.base import REMOVED, STORED_INT8, NodeResult
from edgeq.targets.capabilities import QUANTIZED
from edgeq.targets.coreml.capabilities import CAPABILITIES
from edgeq.targets.coreml.interpreter.structure import MilProgram, Operation
from edgeq.targets.coreml.verification.stored import storage
from edgeq.targets.coreml.verification.value_graph import MOVES, ValueGraph, is_constant

_COMPUTE = frozenset({"conv", "conv_transpose", "linear", "matmul", "einsum", "scaled_dot_product_attention"})
_LOOKUP = frozenset({"gather", "gather_nd", "gather_along_axis"})
_ACTIVATIONS = frozenset(
    {
        "clip", "elu", "gelu", "leaky_relu", "prelu", "relu", "relu6", "sigmoid", "sigmoid_hard", "silu",
        "softplus", "softsign", "tanh", "thresholded_relu", "clamped_relu", "scaled_tanh",
        "linear_activation",
    }
)  # fmt: skip
_FORMATS = {
    "int8": STORED_INT8,
    "uint8": STORED_INT8,
    "int4": "int4",
    "uint4": "int4",
    "lut-4": "pal4",
    "lut-6": "pal6",
}
# The parameters of MIL operations that are multiplied, added or moved: biases and shapes are not.
_FACTORS = ("x", "y", "weight", "values", "input", "query", "key", "value")
# ONNX op → what its product becomes when a later node is fused with it.
_KINDS = {
    "Conv": frozenset({"conv"}),
    "ConvTranspose": frozenset({"conv_transpose"}),
    "Gemm": frozenset({"linear", "matmul"}),
    "MatMul": frozenset({"linear", "matmul"}),
}
_WEIGHTED = frozenset({*_KINDS, "Einsum", "Gather", "GatherBlockQuantized", "MatMulNBits"})
# Endings that the passes give to the name of a value.
_ENDINGS = ("", "_cast_fp16", "_workaround", "_workaround_cast_fp16")


def node_results(program: MilProgram, model: ir.Model, plan: Plan) -> list[NodeResult]:
    """One result per planned node, in the plan's order. ``model`` is the quantized ONNX model.

    ``actual`` is ``int8`` (rounded inputs and weights), ``int8-weight``, ``int4``, ``pal4`` or ``pal6``
    (float arithmetic on weights stored so), ``fp16``, ``fp32``, ``other`` (no floats) or ``removed``. A node
    whose inputs the model rounds and the package does not is float, whatever its weights are stored as.
    """
    lookup = _Lookup(program, model)
    return [lookup.result(node) for node in plan.nodes.values()]


class _Lookup:
    def __init__(self, program: MilProgram, model: ir.Model) -> None:
        self._graph = ValueGraph(program)
        self._nodes = {node.name or "": node for node in model.graph}
        self._names = _Names(model, self._graph)

    def result(self, plan: NodePlan) -> NodeResult:
        node = self._nodes.get(plan.name)
        if node is None:
            return _result(plan, REMOVED, "", "compiled away")
        group = self._operations(node)
        fused = ""
        if not group:
            group, fused = self._fused(node)
        if not group:
            return _result(plan, REMOVED, "", self._why_removed(node))
        main = _main(group)
        actual, found = self._precision(plan, node, group)
        return _result(plan, actual, _kernel(main, self._stored(main)), found or fused)

    def _operations(self, node: ir.Node) -> list[Operation]:
        """What computes the node's results: back to operations that stand for other ONNX values."""
        waiting = [self._producer(output) for output in node.outputs]
        group: list[Operation] = []
        while waiting:
            operation = waiting.pop()
            if operation is None or operation in group or is_constant(operation):
                continue
            group.append(operation)
            waiting += [o for o in self._graph.producers(operation) if not self._names.owns(o)]
        return group

    def _producer(self, value: ir.Value) -> Operation | None:
        name = self._names.of(value)
        return None if name is None else self._graph.producer(name)

    def _fused(self, node: ir.Node) -> tuple[list[Operation], str]:
        """The operations of a later node that do the work of ``node`` as well."""
        kinds = _KINDS.get(node.op_type, frozenset())
        for other in _after(node):
            group = self._operations(other)
            if group and _main(group).type in kinds and other.op_type not in _KINDS:
                return group, f"together with {other.op_type} {other.name!r}"
            if group:
                break
        return [], ""

    def _why_removed(self, node: ir.Node) -> str:
        for other in _after(node):
            if self._operations(other):
                return f"folded into a constant or fused with {other.op_type} {other.name!r}"
        return "folded into a constant"

    def _precision(self, plan: NodePlan, node: ir.Node, group: list[Operation]) -> tuple[str, str]:
        main = _main(group)
        arithmetic = self._arithmetic(main)
        rounds = _model_rounds(node)
        if plan.precision not in QUANTIZED and not rounds and node.op_type not in _WEIGHTED:
            return arithmetic, ""
        stored = _FORMATS.get(self._stored(main) or "", arithmetic)
        if main.type in _LOOKUP or (plan.precision != "int8" and not rounds):
            return stored, ""
        if self._rounded_activation(group) if _is_activation(node) else self._rounded_operation(main):
            return "int8", ""
        if rounds or stored == arithmetic:
            return arithmetic, "the package does not compute it with rounded values"
        return stored, ""

    def _arithmetic(self, main: Operation) -> str:
        types = [result.type.dtype for result in main.outputs]
        types += [dtype for name in self._graph.inputs(main) if (dtype := self._graph.dtype(name))]
        return next((f"fp{t[5:]}" for t in types if t in ("float16", "float32")), "other")

    def _stored(self, main: Operation) -> str | None:
        """The format of the weights that ``main`` reads, None when they are computed or plain floats."""
        for name in self._graph.inputs(main, _FACTORS):
            operation = self._graph.source(name)
            if operation is not None and operation.type.startswith("constexpr_"):
                return storage(operation)
        return None

    def _rounded_operation(self, main: Operation) -> bool:
        """Whether ``main`` computes with rounded values only."""
        factors = self._graph.inputs(main, _FACTORS)
        constant = [name for name in factors if self._graph.is_constant(name)]
        computed = [name for name in factors if name not in constant]
        if main.type in _COMPUTE and not all(self._weight_is_int8(name) for name in constant):
            return False
        return bool(computed) and self._is_rounded(computed)

    def _rounded_activation(self, group: list[Operation]) -> bool:
        """Whether an activation (one operation or several) stands between rounded values and a rounding."""
        inside = {result.name for operation in group for result in operation.outputs}
        read = [name for operation in group for name in self._graph.inputs(operation)]
        entering = [name for name in read if name not in inside and not self._graph.is_constant(name)]
        follows = all(self._follows_rounded(name) for name in entering)
        return bool(entering) and follows and self._is_rounded_after(group[0])

    def _follows_rounded(self, name: str) -> bool:
        """Whether the operation that ``name`` comes from computes with rounded values."""
        before = self._graph.producer(name)
        while before is not None and before.type in (MOVES | _ACTIVATIONS) - {"concat", "stack"}:
            before = next(iter(self._graph.producers(before)), None)
        return before is not None and (before.type == "dequantize" or self._rounded_operation(before))

    def _weight_is_int8(self, name: str) -> bool:
        operation = self._graph.source(name)
        return operation is not None and storage(operation) in ("int8", "uint8")

    def _is_rounded(self, names: Iterable[str]) -> bool:
        """Whether every value comes from ``dequantize``, moved at most."""
        return all(self._comes_rounded(name, set()) for name in names)

    def _comes_rounded(self, name: str, seen: set[str]) -> bool:
        operation = self._graph.producer(name)
        if operation is None or name in seen:
            return False
        if operation.type == "dequantize":
            return True
        if is_constant(operation):
            return storage(operation) in (None, "int8", "uint8")
        seen.add(name)
        if operation.type in MOVES:
            computed = [n for n in self._graph.inputs(operation) if not self._graph.is_constant(n)]
            return bool(computed) and all(self._comes_rounded(n, seen) for n in computed)
        return False

    def _is_rounded_after(self, operation: Operation) -> bool:
        readers = [r for output in operation.outputs for r in self._graph.readers(output.name)]
        return bool(readers) and all(
            reader.type == "quantize"
            or (reader.type in (MOVES | _ACTIVATIONS) and self._is_rounded_after(reader))
            for reader in readers
        )


class _Names:
    """ONNX value → name of the MIL value that stands for it."""

    def __init__(self, model: ir.Model, graph: ValueGraph) -> None:
        self._of: dict[ir.Value, str] = {}
        seen: Counter[str] = Counter()
        for node in model.graph:
            for value in node.outputs:
                clean = _clean(value.name or "")
                name = _find(clean, seen[clean], graph)
                seen[clean] += 1
                if name is not None:
                    self._of[value] = name
        self._taken = frozenset(self._of.values())

    def of(self, value: ir.Value) -> str | None:
        return self._of.get(value)

    def owns(self, operation: Operation) -> bool:
        """Whether the operation's result stands for an ONNX value."""
        return any(result.name in self._taken for result in operation.outputs)


def _clean(name: str) -> str:
    """An identifier, as coremltools' pass sanitize_name_strings makes it."""
    clean = re.sub("[^a-zA-Z0-9_]", "_", name)
    return clean if re.match("[A-Za-z_]", clean) else f"_{clean}"


def _find(clean: str, before: int, graph: ValueGraph) -> str | None:
    """The package's name of a value; ``before`` others had the same identifier and came first."""
    number = f"_{before - 1}" if before else ""
    return next((clean + end + number for end in _ENDINGS if graph.producer(clean + end + number)), None)


def _main(group: list[Operation]) -> Operation:
    """The operation that does the node's work."""
    for wanted in (_COMPUTE, _LOOKUP):
        found = next((operation for operation in group if operation.type in wanted), None)
        if found is not None:
            return found
    return next((operation for operation in group if operation.type not in ("cast", "identity")), group[0])


def _is_activation(node: ir.Node) -> bool:
    """Whether the plan rounds the node's result and not its input."""
    rule = CAPABILITIES.int8_static.get(node.op_type)
    return rule is not None and rule.role == "absorb"


def _model_rounds(node: ir.Node) -> bool:
    """Whether the ONNX model rounds every computed input of ``node``."""
    computed = [value for value in node.inputs if value is not None and not _known(value)]
    return bool(computed) and all(_op_type(value) == "DequantizeLinear" for value in computed)


def _known(value: ir.Value) -> bool:
    producer = value.producer()
    if producer is None:
        return value.is_initializer()
    return producer.op_type in ("Constant", "DequantizeLinear", "Transpose") and all(
        _known(source) for source in producer.inputs if source is not None
    )


def _op_type(value: ir.Value) -> str:
    producer = value.producer()
    return "" if producer is None else producer.op_type


def _after(node: ir.Node, depth: int = 4) -> Iterator[ir.Node]:
    """Readers of what ``node`` writes, nearest first."""
    front: list[ir.Node] = [node]
    for _ in range(depth):
        front = [other for current in front for other in current.successors()]
        yield from front


def _kernel(main: Operation, stored: str | None) -> str:
    return main.type if stored is None else f"{main.type} of {stored} weights"


def _result(plan: NodePlan, actual: str, kernel: str, found: str) -> NodeResult:
    reason = "; ".join(part for part in (plan.reason, found) if part)
    return NodeResult(plan.name, plan.op_type, plan.precision, actual, kernel, reason, plan.asked)
