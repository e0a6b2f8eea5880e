"""Running a model piece by piece: from the tensors that are known to the next ones wanted.

A quantized model is corrected layer after layer, and each correction changes what the next layers see. So the
model runs in segments: every node runs once per batch, and only the tensors that later nodes still need are
kept, quantized ones as integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx
import onnx_ir as ir
import onnxruntime as ort

from edgeq.calibration.runtime import RUNTIME_ERRORS, one_sentence
from edgeq.calibration.types import Array
from edgeq.compiler.quantize.simulation import session_options
from edgeq.compiler.subgraphs import subgraphs
from edgeq.errors import InternalError

Batch = dict[str, Array]


class SegmentedRun:
    """The state of a run: which nodes have run, and the tensors kept, one dict per batch."""

    def __init__(
        self,
        model: ir.Model,
        batches: Sequence[Mapping[str, Array]],
        threads: int | None,
        *,
        in_float: bool = False,
    ) -> None:
        self._model = model
        self._options = session_options(threads, in_float=in_float)
        self._order = list(model.graph)
        self._constant = _constant_nodes(self._order)
        self._done: set[ir.Node] = set()
        self.kept: list[Batch] = [dict(batch) for batch in batches]
        self._known = {value.name for value in model.graph.inputs}

    def advance(self, stops: Iterable[ir.Node], wanted: Iterable[ir.Value]) -> None:
        """Run all that does not depend on a node of ``stops``; keep what is ``wanted`` or needed later."""
        blocked = set(stops)
        ran = [n for n in self._order if n not in self._constant and self._runnable(n, blocked)]
        names = {value.name for node in ran for value in node.outputs if value.name}
        needed = self._needed_later(wanted)
        outputs = sorted(name for name in needed & names if name)
        if outputs:
            self._run(ran, outputs)
        self._known |= names
        for batch in self.kept:
            for name in [n for n in batch if n not in needed]:
                del batch[name]

    def nbytes(self) -> int:
        """Bytes of all tensors kept."""
        return sum(array.nbytes for batch in self.kept for array in batch.values())

    def _runnable(self, node: ir.Node, blocked: set[ir.Node]) -> bool:
        """Whether all inputs are there; marks the node as done."""
        if node in self._done or node in blocked:
            return False
        if not all(self._is_there(value) for value in _reads(node)):
            return False
        self._done.add(node)
        return True

    def _is_there(self, value: ir.Value) -> bool:
        producer = value.producer()
        if producer is None:
            return True
        return producer in self._constant or producer in self._done

    def _needed_later(self, wanted: Iterable[ir.Value]) -> set[str | None]:
        """Names to keep: in the place of a dequantized tensor its integers."""
        needed = [*wanted]
        for node in self._order:
            if node not in self._done and node not in self._constant:
                needed.extend(_reads(node))
        return {_stored_form(v).name for v in needed if not self._is_constant(v)}

    def _is_constant(self, value: ir.Value) -> bool:
        producer = value.producer()
        return value.is_initializer() if producer is None else producer in self._constant

    def _run(self, ran: Sequence[ir.Node], outputs: Sequence[str]) -> None:
        nodes, inputs = self._closure(ran, outputs)
        session = _session(self._model, nodes, inputs, outputs, self._options)
        names = [i.name for i in session.get_inputs()]
        for batch in self.kept:
            results = session.run(list(outputs), {name: batch[name] for name in names})
            batch.update(zip(outputs, results, strict=True))

    def _closure(
        self, ran: Sequence[ir.Node], outputs: Sequence[str]
    ) -> tuple[list[ir.Node], list[ir.Value]]:
        """The nodes that ``outputs`` depend on, back to tensors that are kept, and those tensors."""
        fresh = set(ran)
        kept = self.kept[0]
        produced = {value.name: node for node in self._order for value in node.outputs}
        stack = [produced[name] for name in outputs]
        chosen: set[ir.Node] = set()
        inputs: dict[str, ir.Value] = {}
        while stack:
            node = stack.pop()
            if node in chosen:
                continue
            chosen.add(node)
            for value in _reads(node):
                producer = value.producer()
                if value.name in kept and producer not in fresh:
                    inputs[value.name or ""] = value
                elif producer is not None:
                    stack.append(producer)
        return [n for n in self._order if n in chosen], [inputs[name] for name in sorted(inputs)]


def _reads(node: ir.Node) -> list[ir.Value]:
    """Everything that the node reads from its own graph, also from inside its subgraphs."""
    values = [value for value in node.inputs if value is not None]
    values.extend(value for graph in subgraphs(node) for value in _free_values(graph))
    return values


def _free_values(graph: ir.Graph) -> list[ir.Value]:
    """What a subgraph reads from outside."""
    own = {*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)}
    read = [value for node in graph for value in _reads(node)]
    return [value for value in [*read, *graph.outputs] if value not in own]


def _stored_form(value: ir.Value) -> ir.Value:
    producer = value.producer()
    if producer is not None and producer.op_type == "DequantizeLinear":
        codes = producer.inputs[0]
        if codes is not None and codes.producer() is not None:
            return codes
    return value


def _constant_nodes(order: Sequence[ir.Node]) -> set[ir.Node]:
    constant: set[ir.Node] = set()
    for node in order:
        values = _reads(node)
        if values and all(v.is_initializer() or v.producer() in constant for v in values):
            constant.add(node)
    return constant


def _session(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    inputs: Sequence[ir.Value],
    outputs: Sequence[str],
    options: ort.SessionOptions,
) -> ort.InferenceSession:
    proto = onnx.ModelProto(ir_version=model.ir_version)
    for domain, version in model.opset_imports.items():
        proto.opset_import.append(onnx.helper.make_opsetid(domain, version))
    graph = proto.graph
    graph.name = "segment"
    graph.node.extend(ir.serde.serialize_node(node) for node in nodes)
    graph.input.extend(ir.serde.serialize_value(value) for value in inputs)
    read = {v.name for node in nodes for v in _reads(node)}
    for name, value in model.graph.initializers.items():
        if name in read and value.const_value is not None:
            graph.initializer.append(ir.serde.serialize_tensor(value.const_value))
    known = {v.name: v for node in nodes for v in node.outputs}
    graph.output.extend(_output(known[name]) for name in outputs)
    try:
        return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except RUNTIME_ERRORS as error:
        raise InternalError(f"A part of the quantized model does not load: {one_sentence(error)}") from error


def _output(value: ir.Value) -> onnx.ValueInfoProto:
    return ir.serde.serialize_value(ir.Value(name=value.name, type=value.type))
