"""An If whose condition is known becomes its branch."""

from __future__ import annotations

import onnx_ir as ir

from edgeq.compiler.normalize.editing import array, is_op, nodes, replace_value


class InlineConstantIfPass(ir.passes.InPlacePass):
    """Move the nodes of the branch that is always taken in front of the If and remove the If.

    Requires: canonical constants, unique names in the whole model.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in nodes(model):
            # An inlined outer If takes the nodes of its other branch out of the model.
            if is_op(node, "If") and node.graph is not None and _is_attached(model, node):
                modified = _inline(node) or modified
        return ir.passes.PassResult(model, modified)


def _is_attached(model: ir.Model, node: ir.Node) -> bool:
    return any(node.graph is graph for graph in model.graphs())


def _inline(node: ir.Node) -> bool:
    condition = array(node.inputs[0])
    if condition is None or condition.size != 1:
        return False
    branch = node.attributes["then_branch" if condition.reshape(-1)[0] else "else_branch"].as_graph()
    outputs = list(branch.outputs)
    branch.outputs.clear()
    for name in list(branch.initializers):
        _move_initializer(branch.initializers.pop(name), node)
    body = list(branch)
    branch.remove(body)
    assert node.graph is not None
    node.graph.insert_before(node, body)
    for old, new in zip(node.outputs, outputs, strict=True):
        replace_value(old, new)
    node.graph.remove(node, safe=True)
    return True


def _move_initializer(value: ir.Value, node: ir.Node) -> None:
    assert node.graph is not None
    node.graph.register_initializer(value)
