"""The state of one data-free quantization: the graph that is rewritten, and the plan that grows with it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgeq.compiler.plan import Plan, QuantParams, QuantSpec
from edgeq.compiler.quantize.ties import find_ties
from edgeq.compiler.recipe import Recipe
from edgeq.targets.capabilities import Capabilities

if TYPE_CHECKING:
    from edgeq.compiler.quantize.blocks import Learned

MICROSOFT = "com.microsoft"


class Editor:
    """Adds initializers and nodes to a model under names that are free."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.cache: dict[Any, Any] = {}
        self._names = _value_names(model)
        self._node_names = {node.name or "" for node in model.graph.all_nodes()}

    def initializer(self, name: str, array: npt.NDArray[Any]) -> ir.Value:
        """A new constant of the main graph, visible in every subgraph."""
        value = ir.Value(
            name=self.free_name(name),
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        )
        value.const_value = ir.tensor(np.asarray(array, order="C"), name=value.name)
        self.model.graph.register_initializer(value)
        return value

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        *,
        attributes: dict[str, Any] | None = None,
        domain: str = "",
        outputs: int = 1,
        final: bool = False,
    ) -> ir.Node:
        """A new node that is in no graph yet. Its outputs are named after it.

        A ``final`` node takes the place and the name of a node of the model; others get a free name.
        """
        if not final:
            name = _free(name, self._node_names)
        if domain:
            self.model.opset_imports.setdefault(domain, 1)
        made = ir.node(op_type, inputs, attributes=attributes, domain=domain, num_outputs=outputs, name=name)
        for index, output in enumerate(made.outputs):
            output.name = self.free_name(name if outputs == 1 else f"{name}_{index}")
        return made

    def insert_before(self, node: ir.Node, made: Sequence[ir.Node]) -> None:
        assert node.graph is not None
        node.graph.insert_before(node, made)

    def insert_first(self, made: Sequence[ir.Node]) -> None:
        """At the start of the main graph: for nodes that read constants only."""
        graph = self.model.graph
        graph.insert_before(graph[0], made)

    def replace(self, node: ir.Node, made: Sequence[ir.Node]) -> None:
        """Put ``made`` in the place of ``node``; the last one's outputs take over its outputs."""
        old = list(node.outputs)
        new = list(made[-1].outputs)[: len(old)]
        assert node.graph is not None
        ir.convenience.replace_nodes_and_values(node.graph, node, [node], made, old, new)

    def follow(self, node: ir.Node, made: Sequence[ir.Node]) -> None:
        """Let the readers of the node's one result read that of the last of ``made``, under the old name."""
        result, last = node.outputs[0], made[-1].outputs[0]
        for value in (step.outputs[0] for step in made):
            value.type = result.type
            value.shape = None if result.shape is None else ir.Shape(list(result.shape))
        assert node.graph is not None
        node.graph.insert_after(node, made)
        for user, index in list(result.uses()):
            if user not in made:
                user.replace_input_with(index, last)
        outputs = self.model.graph.outputs
        for index, output in enumerate(outputs):
            if output is result:
                outputs[index] = last
        name = result.name or ""
        result.name = self.free_name(f"{name}_before")
        last.name = name

    def free_name(self, base: str) -> str:
        """A name that no value has yet; it is taken from now on."""
        return _free(base, self._names)


class Rewriter(Editor):
    """Edits a model for a target by a recipe, and remembers what was quantized how."""

    def __init__(self, model: ir.Model, capabilities: Capabilities, recipe: Recipe) -> None:
        super().__init__(model)
        self.capabilities = capabilities
        self.recipe = recipe
        self.block_size = capabilities.blocks_of(recipe)
        self.plan = Plan()
        self.params: dict[str, QuantParams] = {}
        self.ties = find_ties(model)
        # What calibration data has made of weights, by what their blocks are kept under.
        self.learned: dict[Hashable, Learned] = {}

    def record(self, name: str, spec: QuantSpec, scale: npt.NDArray[Any], zero: npt.NDArray[Any]) -> None:
        """Remember how the weight ``name`` was quantized."""
        self.plan.weights[name] = spec
        self.params[name] = QuantParams(spec, np.asarray(scale, np.float32), zero)


def _free(base: str, taken: set[str]) -> str:
    name, number = base, 0
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    taken.add(name)
    return name


def _value_names(model: ir.Model) -> set[str]:
    names = {value.name or "" for value in model.graph.inputs}
    names.update(model.graph.initializers)
    for graph in model.graph.subgraphs():
        names.update(value.name or "" for value in graph.inputs)
        names.update(graph.initializers)
    for node in model.graph.all_nodes():
        names.update(value.name or "" for value in node.outputs)
    return names


def drop_unused(model: ir.Model) -> None:
    """Remove nodes and initializers that nothing reads any more: quantized weights leave their originals."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)
