"""Names and order: every input a node reads exists, and the nodes can be put in an order that runs."""

from __future__ import annotations

import heapq

import onnx

from edgeq.compiler.load import protos
from edgeq.errors import ModelError


def sort_nodes(graph: onnx.GraphProto, name: str, outer: frozenset[str] = frozenset()) -> None:
    """Put the nodes of ``graph`` and of its sub-graphs into topological order, stable where it holds already.

    The specification asks for that order; some tools write another, and ONNX Runtime accepts it.

    Raises:
        ModelError: a node reads a value that nothing produces, or nodes form a cycle.
    """
    produced = {output: index for index, node in enumerate(graph.node) for output in node.output if output}
    known = outer | produced.keys() | {value.name for value in graph.input}
    known |= {tensor.name for tensor in graph.initializer}
    reads = [_reads(node) for node in graph.node]
    for node in graph.node:
        _check_inputs(node, known, name)
        for inner in protos.subgraphs(node):
            sort_nodes(inner, name, known)
    sources = [{produced[value] for value in some if value in produced} for some in reads]
    _reorder(graph, _order(sources, graph, name))


def _check_inputs(node: onnx.NodeProto, known: frozenset[str] | set[str], name: str) -> None:
    for value in node.input:
        if value and value not in known:
            raise ModelError(
                f"{name} is not a valid ONNX model: node {protos.label(node)} reads {value!r}, which is "
                "neither an input, an initializer nor any node's output."
            )


def _reads(node: onnx.NodeProto) -> set[str]:
    """What a node needs before it can run: its inputs and what its sub-graphs take from outside."""
    reads = set(node.input)
    for inner in protos.subgraphs(node):
        reads |= _free_names(inner)
    return reads


def _free_names(graph: onnx.GraphProto) -> set[str]:
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {output for node in graph.node for output in node.output}
    used = {value.name for value in graph.output}
    for node in graph.node:
        used |= _reads(node)
    return used - own


def _order(sources: list[set[int]], graph: onnx.GraphProto, name: str) -> list[int]:
    """Kahn's algorithm; among nodes that are ready the earliest in the file comes first."""
    waiting = [len(some) for some in sources]
    users: list[list[int]] = [[] for _ in sources]
    for index, some in enumerate(sources):
        for source in some:
            users[source].append(index)
    ready = [index for index, count in enumerate(waiting) if count == 0]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for user in users[index]:
            waiting[user] -= 1
            if waiting[user] == 0:
                heapq.heappush(ready, user)
    if len(order) < len(sources):
        stuck = next(index for index, count in enumerate(waiting) if count)
        node = protos.label(graph.node[stuck])
        raise ModelError(f"{name} is not a valid ONNX model: its nodes form a cycle through {node}.")
    return order


def _reorder(graph: onnx.GraphProto, order: list[int]) -> None:
    if order == sorted(order):
        return
    copies = []
    for index in order:
        copy = onnx.NodeProto()
        copy.CopyFrom(graph.node[index])
        copies.append(copy)
    del graph.node[:]
    graph.node.extend(copies)
