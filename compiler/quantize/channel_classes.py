"""Which channels of which tensors can only be scaled together, so that the model's function stays the same.

Linear layers may scale every channel that they write (rows of their weights) and take it back in every
channel that they read (columns). Between them stand ops that pass a positive factor on: f(s x) = s f(x).
Channels that an addition joins form one class. A class is fixed where anything else reads or writes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgeq.compiler.plan_nodes import attribute, constant, input_at, is_constant, rank_of
from edgeq.compiler.subgraphs import subgraphs

Indices = npt.NDArray[np.int64]
LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True)
class Channels:
    """The channels of a tensor: an element per index of ``axis``."""

    elements: Indices
    axis: int


@dataclass(frozen=True)
class Port:
    """A linear layer and the elements of the channels that it reads or writes."""

    node: ir.Node
    elements: Indices


class ChannelClasses:
    """The classes of a graph. Elements are numbers; :meth:`classes` says which of them scale together."""

    def __init__(self, graph: ir.Graph) -> None:
        self.writers: list[Port] = []
        self.readers: list[Port] = []
        self.tensors: dict[str, Channels] = {}
        self._parent: list[int] = []
        self._fixed: set[int] = set()
        for node in graph:
            self._visit(node)
        for output in graph.outputs:
            self._fix(output)

    def classes(self) -> tuple[Indices, npt.NDArray[np.bool_]]:
        """The class of every element, and for every element whether its class may be scaled."""
        roots = np.array([self._root(i) for i in range(len(self._parent))], np.int64)
        fixed = {self._root(i) for i in self._fixed}
        return roots, np.array([root not in fixed for root in roots.tolist()], bool)

    def _visit(self, node: ir.Node) -> None:
        handle = _HANDLERS.get(node.op_type) if node.domain == "" else None
        found = None if handle is None else handle(self, node)
        if found is None:
            for value in [*node.inputs, *_read_inside(node)]:
                self._fix(value)
        elif node.outputs[0].name:
            self.tensors[node.outputs[0].name] = found

    def _of(self, value: ir.Value | None) -> Channels | None:
        return None if value is None else self.tensors.get(value.name or "")

    def _fix(self, value: ir.Value | None) -> None:
        channels = self._of(value)
        if channels is not None:
            self._fixed.update(channels.elements.tolist())

    def _root(self, element: int) -> int:
        while (parent := self._parent[element]) != element:
            self._parent[element] = self._parent[parent]
            element = parent
        return element

    def _new(self, count: int) -> Indices:
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count)

    def _linear(self, node: ir.Node) -> Channels | None:
        if not is_constant(input_at(node, 1)) or attribute(node, "transA", 0):
            return None
        weights = constant(input_at(node, 1))
        axis, rank = (1, rank_of(node.outputs[0])) if node.op_type != "MatMul" else (-1, None)
        rank = rank_of(node.outputs[0]) if rank is None else rank
        if weights is None or weights.dtype != np.float32 or rank is None:
            return None
        if node.op_type in ("Gemm", "MatMul") and weights.ndim != 2:
            return None
        view = grouped_weights(node, weights)
        count = view.shape[0] * view.shape[1]
        source = self._of(input_at(node, 0))
        if source is not None:
            expected = 1 if node.op_type != "MatMul" else (rank_of(input_at(node, 0)) or 0) - 1
            if source.axis != expected or len(source.elements) != view.shape[0] * view.shape[2]:
                return None
            self.readers.append(Port(node, source.elements))
        made = Channels(self._new(count), axis % rank)
        self.writers.append(Port(node, made.elements))
        bias = input_at(node, 2)
        numbers = constant(bias)
        if bias is not None and (numbers is None or numbers.shape != (count,)):
            self._fixed.update(made.elements.tolist())
        return made

    def _elementwise(self, node: ir.Node) -> Channels | None:
        return self._of(node.inputs[0])

    def _pool(self, node: ir.Node) -> Channels | None:
        found = self._of(node.inputs[0])
        return found if found is not None and found.axis == 1 and len(node.outputs) == 1 else None

    def _add(self, node: ir.Node) -> Channels | None:
        first, second = (self._of(value) for value in node.inputs)
        if first is None or second is None or first.axis != second.axis:
            return None
        ranks = {rank_of(value) for value in node.inputs}
        if len(ranks) != 1 or len(first.elements) != len(second.elements):
            return None
        for a, b in zip(first.elements.tolist(), second.elements.tolist(), strict=True):
            self._parent[self._root(b)] = self._root(a)
        return first

    def _concat(self, node: ir.Node) -> Channels | None:
        parts = [self._of(value) for value in node.inputs]
        known = [part for part in parts if part is not None]
        axis, rank = attribute(node, "axis", 0), rank_of(node.outputs[0])
        if len(known) != len(parts) or not isinstance(axis, int) or rank is None:
            return None
        if any(part.axis != axis % rank for part in known):
            return None
        return Channels(np.concatenate([part.elements for part in known]), axis % rank)

    def _flatten(self, node: ir.Node) -> Channels | None:
        """[N, C, ...] as [N, C * ...]: every channel fills neighbouring columns."""
        found, shape = self._of(node.inputs[0]), node.outputs[0].shape
        if found is None or found.axis != 1 or shape is None or len(shape) != 2:
            return None
        source, width = node.inputs[0], shape[1]
        count = len(found.elements)
        if source is None or source.shape is None or not isinstance(width, int) or width % count:
            return None
        if source.shape[0] != shape[0] or source.shape[1] != count:
            return None
        return Channels(np.repeat(found.elements, width // count), 1)


_HANDLERS: dict[str, Callable[[ChannelClasses, ir.Node], Channels | None]] = {
    **dict.fromkeys(LINEAR, ChannelClasses._linear),
    **dict.fromkeys(("Relu", "LeakyRelu", "Identity"), ChannelClasses._elementwise),
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"), ChannelClasses._pool),
    "Add": ChannelClasses._add,
    "Concat": ChannelClasses._concat,
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze"), ChannelClasses._flatten),
}


def grouped_weights(node: ir.Node, weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A view [groups, channels written, channels read, kernel positions] of a linear layer's weights."""
    group = attribute(node, "group", 1)
    count = group if isinstance(group, int) else 1
    if node.op_type == "Conv":
        return weights.reshape(count, weights.shape[0] // count, weights.shape[1], -1)
    if node.op_type == "ConvTranspose":
        split = weights.reshape(count, weights.shape[0] // count, weights.shape[1], -1)
        return split.transpose(0, 2, 1, 3)
    rows = weights if node.op_type == "Gemm" and attribute(node, "transB", 0) else weights.T
    return rows[None, :, :, None]


def _read_inside(node: ir.Node) -> list[ir.Value]:
    """What the subgraphs of a node read."""
    graphs = subgraphs(node)
    inner = [n for graph in graphs for n in graph.all_nodes()]
    values = [v for n in inner for v in n.inputs] + [v for graph in graphs for v in graph.outputs]
    return [value for value in values if value is not None]
