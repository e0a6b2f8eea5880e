"""Nodes that change nothing, and values that nothing reads, go."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, RemoveUnusedNodesPass

from edgeq.compiler.normalize.editing import (
    array,
    get_input,
    get_ints,
    integers,
    is_constant,
    is_op,
    nodes,
    rank,
    remove_if_unused,
    replace_value,
    scalar,
)
from edgeq.compiler.normalize.symbolic import dimensions

_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)


class RemoveNoOpsPass(ir.passes.InPlacePass):
    """Let the readers of a node that passes its input on read that input.

    Requires: canonical constants, inferred shapes. Ensures: an Identity is left only between a graph output
    and a graph input, a constant, a value of an outer graph, or another output.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        count = sum(_bypass(node) for node in nodes(model))
        return ir.passes.PassResult(model, bool(count))


def _bypass(node: ir.Node) -> bool:
    source, output = _passed_on(node), node.outputs[0]
    if source is None or node.graph is None:
        return False
    if output.is_graph_output() and not _can_become_output(node, source):
        return _make_identity(node, source)
    replace_value(output, source)
    return remove_if_unused(node)


def _passed_on(node: ir.Node) -> ir.Value | None:
    """The input that the node passes on unchanged."""
    if is_op(node, "Where"):
        return _always_chosen(node)
    check = _CHECKS.get(node.op_type) if node.domain == "" else None
    return node.inputs[0] if check is not None and check(node) else None


def _make_identity(node: ir.Node, source: ir.Value) -> bool:
    if node.op_type == "Identity":
        return False
    for index in range(len(node.inputs)):
        node.replace_input_with(index, source if index == 0 else None)
    node.resize_inputs(1)
    node.attributes.clear()
    node.op_type = "Identity"
    return True


def _always_chosen(node: ir.Node) -> ir.Value | None:
    """The branch of a Where whose condition is constant and that has the output's shape."""
    condition = array(node.inputs[0])
    if condition is None or condition.size == 0 or condition.any() != condition.all():
        return None
    chosen = node.inputs[1 if condition.all() else 2]
    dims = dimensions(chosen)
    return chosen if dims is not None and None not in dims and dims == dimensions(node.outputs[0]) else None


def _can_become_output(node: ir.Node, value: ir.Value) -> bool:
    maker = value.producer()
    return maker is not None and maker.graph is node.graph and not value.is_graph_output()


def _always(node: ir.Node) -> bool:
    return True


def _dropout(node: ir.Node) -> bool:
    """Without training mode Dropout passes its input on."""
    if any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        return False
    mode = get_input(node, 2)
    training = array(mode)
    return mode is None or (training is not None and not training.any())


def _cast(node: ir.Node) -> bool:
    source = node.inputs[0]
    return source is not None and source.dtype is not None and source.dtype == node.attributes["to"].as_int()


def _transpose(node: ir.Node) -> bool:
    perm = get_ints(node, "perm")
    return perm is not None and list(perm) == list(range(len(perm)))


def _same_shape(node: ir.Node) -> bool:
    before, after = dimensions(node.inputs[0]), dimensions(node.outputs[0])
    return before is not None and before == after and None not in before


def _single_input(node: ir.Node) -> bool:
    return len(node.inputs) == 1


def _whole_slice(node: ir.Node) -> bool:
    """Starts at 0, reaches the largest number, step 1."""
    starts, ends = integers(node.inputs[1]), integers(node.inputs[2])
    steps = [1] if get_input(node, 4) is None else integers(get_input(node, 4))
    if starts is None or ends is None or steps is None:
        return False
    far = all(end >= np.iinfo(np.int32).max for end in ends)
    return (not any(starts) and all(s == 1 for s in steps) and far) or (
        all(s == 1 for s in steps) and _same_shape(node)
    )


def _no_padding(node: ir.Node) -> bool:
    pads = integers(node.inputs[1])
    return pads is not None and not any(pads)


def _neutral(number: float, *, either_side: bool) -> Callable[[ir.Node], bool]:
    """An operand that is everywhere ``number`` and does not enlarge the other one."""

    def check(node: ir.Node) -> bool:
        first, second = node.inputs
        if is_constant(first) and either_side and not is_constant(second):
            _swap(node)
            first, second = second, first
        return scalar(second) == number and _keeps_rank(first, second)

    return check


def _keeps_rank(value: ir.Value | None, constant: ir.Value | None) -> bool:
    known, small = rank(value), rank(constant)
    return small == 0 or (known is not None and small is not None and small <= known)


def _swap(node: ir.Node) -> None:
    first, second = node.inputs
    node.replace_input_with(0, second)
    node.replace_input_with(1, first)


_CHECKS: Mapping[str, Callable[[ir.Node], bool]] = {
    "Identity": _always,
    "Dropout": _dropout,
    "Cast": _cast,
    "Transpose": _transpose,
    "Reshape": _same_shape,
    "Flatten": _same_shape,
    "Expand": _same_shape,
    "Squeeze": _same_shape,
    "Concat": _single_input,
    "Sum": _single_input,
    "Max": _single_input,
    "Min": _single_input,
    "Mean": _single_input,
    "Slice": _whole_slice,
    "Pad": _no_padding,
    "Add": _neutral(0.0, either_side=True),
    "Sub": _neutral(0.0, either_side=False),
    "Mul": _neutral(1.0, either_side=True),
    "Div": _neutral(1.0, either_side=False),
    "Pow": _neutral(1.0, either_side=False),
}


class RemoveUnusedPass(ir.passes.InPlacePass):
    """Remove nodes, initializers and optional outputs that nothing reads, and opsets that no node uses."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = RemoveUnusedNodesPass()(model).modified
        if _release(model):
            modified = RemoveUnusedNodesPass()(model).modified or modified
        used = {node.domain for node in nodes(model)} | {""}
        for domain in set(model.opset_imports) - used:
            del model.opset_imports[domain]
            modified = True
        return ir.passes.PassResult(model, modified)


def _release(model: ir.Model) -> bool:
    """Disconnect nodes of subgraphs that went with their If or Loop: they still count as readers."""
    alive = set(nodes(model))
    values = [*model.graph.inputs, *model.graph.initializers.values(), *(v for n in alive for v in n.outputs)]
    stale = [use for value in values for use in value.uses() if use.node not in alive]
    for use in stale:
        use.node.replace_input_with(use.idx, None)
    return bool(stale)


class MergeEqualNodesPass(ir.passes.InPlacePass):
    """Compute equal expressions once (the library's pass, left out where it would merge random numbers)."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if any(is_op(node, *_RANDOM) for node in nodes(model)):
            return ir.passes.PassResult(model, False)
        return CommonSubexpressionEliminationPass()(model)
