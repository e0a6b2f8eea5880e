"""Writing the plan into the graph: QuantizeLinear/DequantizeLinear pairs, integer weights and biases."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgeq.compiler.model import Model
from edgeq.compiler.plan import Plan, QuantParams
from edgeq.compiler.plan_nodes import activation_ports, is_lookup
from edgeq.compiler.quantize.rewriter import Rewriter, drop_unused
from edgeq.compiler.quantize.static_weights import QuantizedWeight
from edgeq.compiler.recipe import Recipe
from edgeq.targets.capabilities import Capabilities


def insert_qdq(
    model: Model,
    plan: Plan,
    capabilities: Capabilities,
    recipe: Recipe,
    activations: Mapping[str, QuantParams],
    weights: Mapping[str, QuantizedWeight],
) -> None:
    """Make ``model`` the QDQ form of ``plan``, in place."""
    writer = _Writer(model, plan, capabilities, recipe, activations, weights)
    narrow = capabilities.weight_form == "expanded"
    for node in list(model.ir.graph):
        if narrow and is_lookup(node) and node.inputs[0] is not None and node.inputs[0].name in weights:
            writer.lookup(node)
    for name in list(weights):
        writer.weight(name)
    for value in _values(model.ir.graph):
        if value.name in activations:
            writer.activation(value)
    drop_unused(model.ir)


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *(output for node in graph for output in node.outputs)]


class _Writer:
    def __init__(
        self,
        model: Model,
        plan: Plan,
        capabilities: Capabilities,
        recipe: Recipe,
        activations: Mapping[str, QuantParams],
        weights: Mapping[str, QuantizedWeight],
    ) -> None:
        self.graph = model.ir.graph
        self.plan = plan
        self.capabilities = capabilities
        self.activations = activations
        self.weights = weights
        self.edit = Rewriter(model.ir, capabilities, recipe)

    def activation(self, value: ir.Value) -> None:
        """Put a Q/DQ pair behind ``value`` for the consumers that compute with its integers."""
        name = value.name or ""
        scale, zero = self._parameters(name, self.activations[name])
        stored = name in self.plan.stored
        uses = [use for use in value.uses() if stored or self._wants_int8(*use)]
        quantize = self.edit.node("QuantizeLinear", [value, scale, zero], f"{name}_QuantizeLinear")
        dequantize = self.edit.node(
            "DequantizeLinear", [quantize.outputs[0], scale, zero], f"{name}_DequantizeLinear"
        )
        self._type(quantize.outputs[0], value, ir.DataType[self.activations[name].spec.dtype.upper()])
        self._type(dequantize.outputs[0], value, ir.DataType.FLOAT)
        self._insert_behind(value, [quantize, dequantize])
        for node, index in uses:
            node.replace_input_with(index, dequantize.outputs[0])
        if stored and value.is_graph_output():
            self._hand_over_output(value, dequantize.outputs[0])

    def weight(self, name: str) -> None:
        """Replace a float initializer by its integers and a DequantizeLinear."""
        value = self.graph.initializers.get(name)
        if value is None or not list(value.uses()):
            return
        weight = self.weights[name]
        codes = self.edit.initializer(f"{name}_quantized", weight.codes)
        scale, zero = self._parameters(name, weight.params)
        axis = weight.params.spec.axis
        attributes = {} if axis is None else {"axis": axis}
        dequantize = self.edit.node(
            "DequantizeLinear", [codes, scale, zero], f"{name}_DequantizeLinear", attributes=attributes
        )
        self._type(dequantize.outputs[0], value, ir.DataType.FLOAT)
        self.graph.insert_before(self.graph[0], [dequantize])
        for node, index in list(value.uses()):
            node.replace_input_with(index, dequantize.outputs[0])
        del self.graph.initializers[name]

    def lookup(self, node: ir.Node) -> None:
        """Let a Gather read rows of integers, and widen only the rows it has read."""
        table, rows = node.inputs[0], node.outputs[0]
        assert table is not None
        name = table.name or ""
        weight = self.weights[name]
        codes = self.graph.initializers.get(f"{name}_quantized") or self.edit.initializer(
            f"{name}_quantized", weight.codes
        )
        scale, zero = self._parameters(name, weight.params)
        uses = list(rows.uses())
        node.replace_input_with(0, codes)
        dequantize = self.edit.node(
            "DequantizeLinear",
            [rows, scale, zero],
            f"{rows.name}_DequantizeLinear",
            attributes={} if weight.params.spec.axis is None else {"axis": -1},
        )
        self._type(dequantize.outputs[0], rows, ir.DataType.FLOAT)
        rows.type = ir.TensorType(ir.DataType.from_numpy(weight.codes.dtype))
        self._insert_behind(rows, [dequantize])
        for user, index in uses:
            user.replace_input_with(index, dequantize.outputs[0])
        self._hand_over_name(rows, dequantize.outputs[0])

    def _parameters(self, name: str, params: QuantParams) -> tuple[ir.Value, ir.Value]:
        known = self.edit.cache.get(name)
        if known is None:
            scale = self.edit.initializer(f"{name}_scale", params.scale)
            known = scale, self.edit.initializer(f"{name}_zero_point", params.zero_point)
            self.edit.cache[name] = known
        first, second = known
        return first, second

    def _wants_int8(self, node: ir.Node, index: int) -> bool:
        if index in self.plan.reads.get(node.name or "", ()):
            return True
        planned = self.plan.nodes.get(node.name or "")
        rule = self.capabilities.int8_static.get(node.op_type)
        if planned is None or planned.precision != "int8" or rule is None or is_lookup(node):
            return False
        return index in activation_ports(node, rule)

    def _insert_behind(self, value: ir.Value, nodes: list[ir.Node]) -> None:
        producer = value.producer()
        if producer is None:
            self.graph.insert_before(self.graph[0], nodes)
        else:
            self.graph.insert_after(producer, nodes)

    def _hand_over_output(self, old: ir.Value, new: ir.Value) -> None:
        """Make ``new`` the graph output that ``old`` was."""
        outputs = self.graph.outputs
        for index, output in enumerate(outputs):
            if output is old:
                outputs[index] = new
        self._hand_over_name(old, new, force=True)

    def _hand_over_name(self, old: ir.Value, new: ir.Value, *, force: bool = False) -> None:
        if old.is_graph_output():
            for index, output in enumerate(self.graph.outputs):
                if output is old:
                    self.graph.outputs[index] = new
            force = True
        if force:
            name = old.name or ""
            old.name = self.edit.free_name(f"{name}_float")
            new.name = name

    def _type(self, value: ir.Value, like: ir.Value, dtype: ir.DataType) -> None:
        value.type = ir.TensorType(dtype)
        value.shape = None if like.shape is None else ir.Shape(list(like.shape))
