"""Decomposed activations become their operators, recognized by what they compute.

Exporters write Gelu, HardSwish and the others in many ways (0.5 before or after, Div or Mul, Clip or Relu6).
Instead of one pattern for each, a group of elementwise nodes with a single input is evaluated in float64 on
sample points and compared with the known activations.

SiLU (x·sigmoid(x)) and Mish stay: as Sigmoid and Mul every runtime has kernels for them, also in INT8, while
Swish needs opset 24 and ONNX Runtime takes both apart again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeq.calibration.types import Array
from edgeq.compiler.normalize.editing import (
    FLOATS,
    add_constant,
    array,
    is_constant,
    remove_if_unused,
    replace_node,
)
from edgeq.compiler.normalize.elementwise import EVALUATORS, evaluate
from edgeq.compiler.normalize.known_activations import Activation, recognize

_MAX_NODES = 14
_MAX_CHANNELS = 4096
# Dense around zero, where activations bend, and far out, where clips and overflows show. 0 is a sample; the
# places where piecewise linear activations bend (±3, 6) are none.
_FAR = np.array([12.0, 20.0, 40.0, 80.0, 1e3, 3e4])
SAMPLES = np.concatenate([-_FAR[::-1], np.linspace(-9.87, 9.87, 801), _FAR])
_PRECISION = {ir.DataType.FLOAT16: 1e-3, ir.DataType.FLOAT: 1e-5, ir.DataType.DOUBLE: 1e-9}


@dataclass(frozen=True)
class _Group:
    """Elementwise nodes, in order, from the one input ``source`` to the last one's output."""

    source: ir.Value
    members: tuple[ir.Node, ...]


class FuseActivationsPass(ir.passes.InPlacePass):
    """Replace groups of elementwise nodes by Relu, LeakyRelu, PRelu, Clip, HardSigmoid, HardSwish, Gelu, ….

    Requires: canonical constants, inferred types. Values that other nodes read stay.
    """

    def __init__(self) -> None:
        super().__init__()
        self.applied: Counter[str] = Counter()

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        before = self.applied.total()
        for graph in list(model.graphs()):
            order = {node: index for index, node in enumerate(graph)}
            # The largest groups end last.
            for node in reversed(list(graph)):
                if node.graph is graph and node.op_type in EVALUATORS:
                    self._fuse(model, node, order)
        return ir.passes.PassResult(model, self.applied.total() > before)

    def _fuse(self, model: ir.Model, node: ir.Node, order: Mapping[ir.Node, int]) -> None:
        for group in _groups(node, order):
            found = _recognized(group)
            if found is not None:
                _replace(model, group, found)
                self.applied[f"fuse {found.op_type}"] += 1
                return


def _groups(root: ir.Node, order: Mapping[ir.Node, int]) -> list[_Group]:
    """All groups that end in ``root`` and have one input, the smallest first."""
    if not _is_member(root):
        return []
    members, frontier, found = [root], _variables(root), []
    while len(members) < _MAX_NODES:
        if len(frontier) == 1:
            found.append(_Group(frontier[0], tuple(sorted(members, key=lambda n: order[n]))))
        inner = [v.producer() for v in frontier if _is_inner(v, members, order)]
        if not inner:
            return found
        last = max((n for n in inner if n is not None), key=lambda n: order[n])
        members.append(last)
        frontier = [v for v in frontier if v.producer() is not last]
        frontier += [v for v in _variables(last) if not any(v is w for w in frontier)]
    return found


def _is_member(node: ir.Node) -> bool:
    if node.domain or node.op_type not in EVALUATORS or len(node.outputs) != 1:
        return False
    return node.outputs[0].dtype in FLOATS and bool(_variables(node))


def _is_inner(value: ir.Value, members: Sequence[ir.Node], order: Mapping[ir.Node, int]) -> bool:
    """Whether the node that makes ``value`` may join: only members read it."""
    node = value.producer()
    if node is None or node not in order or value.is_graph_output() or not _is_member(node):
        return False
    return all(use.node in members for use in value.uses())


def _variables(node: ir.Node) -> list[ir.Value]:
    result: list[ir.Value] = []
    for value in node.inputs:
        if value is not None and not is_constant(value) and not any(value is v for v in result):
            result.append(value)
    return result


def _recognized(group: _Group) -> Activation | None:
    constants = {v for node in group.members for v in node.inputs if v is not None and is_constant(v)}
    if not all(_broadcasts_into(v, group.source) and _is_small(v) for v in constants):
        return None
    result = _on_samples(group)
    if result is None:
        return None
    precision = None if group.source.dtype is None else _PRECISION.get(group.source.dtype)
    found = None if precision is None else recognize(SAMPLES, result, precision)
    if found is None or (len(group.members) == 1 and _is_no_gain(group.members[0].op_type, found)):
        return None
    return found


def _is_no_gain(op_type: str, found: Activation) -> bool:
    """One node is replaced only by a plainer one, so that the pass ends: Max → Relu, PRelu → LeakyRelu."""
    order = ("Min", "Max", "Clip", "PRelu", "LeakyRelu", "Relu")
    if op_type not in order or found.op_type not in order:
        return True
    return order.index(found.op_type) <= order.index(op_type)


def _is_small(constant: ir.Value) -> bool:
    """A slope per channel at most: larger constants are no activation's parameters."""
    return constant.const_value is not None and constant.const_value.size <= _MAX_CHANNELS


def _broadcasts_into(constant: ir.Value, source: ir.Value) -> bool:
    """Whether the constant leaves the shape of ``source`` as it is."""
    shape = constant.shape
    if shape is None or len(shape) == 0:
        return shape is not None
    if source.shape is None or len(shape) > len(source.shape):
        return False
    aligned = source.shape[len(source.shape) - len(shape) :]
    return all(small in (1, large) for small, large in zip(shape, aligned, strict=True))


def _on_samples(group: _Group) -> Array | None:
    """The group's output on ``SAMPLES``: [samples, *broadcast shape of the constants]."""
    ranks = [
        len(v.shape) for n in group.members for v in n.inputs if is_constant(v) and v and v.shape is not None
    ]
    source = SAMPLES.reshape([-1] + [1] * max(ranks, default=0))
    values: dict[ir.Value, Array] = {group.source: source}
    with np.errstate(all="ignore"):
        for node in group.members:
            inputs = [_known(v, values) for v in node.inputs]
            result = evaluate(node, inputs)
            if result is None:
                return None
            values[node.outputs[0]] = result
    return values[group.members[-1].outputs[0]]


def _known(value: ir.Value | None, values: Mapping[ir.Value, Array]) -> Array | None:
    if value is None:
        return None
    if value in values:
        return values[value]
    content = array(value)
    return None if content is None else content.astype(np.float64)


def _replace(model: ir.Model, group: _Group, found: Activation) -> None:
    root = group.members[-1]
    dtype = group.source.dtype
    assert dtype is not None
    extra = [
        None
        if content is None
        else add_constant(model, content.astype(dtype.numpy()), f"{root.name}/{index}")
        for index, content in enumerate(found.inputs, start=1)
    ]
    replace_node(root, ir.node(found.op_type, [group.source, *extra], attributes=dict(found.attributes)))
    for node in reversed(group.members[:-1]):
        remove_if_unused(node)
