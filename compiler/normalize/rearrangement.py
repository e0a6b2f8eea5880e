"""Chains of Transposes, of Reshapes and of Casts become one node."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgeq.compiler.normalize.editing import (
    add_constant,
    get_ints,
    integers,
    is_op,
    nodes,
    producer,
    remove_if_unused,
)

_RESHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
# Dtypes whose every value the other can hold: a Cast in between changes nothing for a further Cast.
_EXACT = frozenset(
    {
        (ir.DataType.FLOAT16, ir.DataType.FLOAT),
        (ir.DataType.FLOAT16, ir.DataType.DOUBLE),
        (ir.DataType.FLOAT, ir.DataType.DOUBLE),
        (ir.DataType.INT32, ir.DataType.INT64),
        (ir.DataType.INT8, ir.DataType.INT32),
        (ir.DataType.UINT8, ir.DataType.INT32),
        (ir.DataType.INT8, ir.DataType.INT64),
        (ir.DataType.UINT8, ir.DataType.INT64),
        (ir.DataType.BOOL, ir.DataType.INT32),
        (ir.DataType.BOOL, ir.DataType.INT64),
        (ir.DataType.BOOL, ir.DataType.FLOAT),
    }
)


class MergeRearrangementsPass(ir.passes.InPlacePass):
    """Let a Transpose, Reshape or Cast that follows one of its kind read the first one's input.

    Requires: canonical constants, inferred shapes. Inverse Transposes become an identity Transpose, which
    :class:`RemoveNoOpsPass` removes.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        count = 0
        for node in nodes(model):
            if is_op(node, "Transpose"):
                count += _merge_transposes(node)
            elif is_op(node, *_RESHAPING):
                count += _merge_reshapes(model, node)
            elif is_op(node, "Cast"):
                count += _merge_casts(node)
        return ir.passes.PassResult(model, bool(count))


def _read_instead(node: ir.Node, first: ir.Node) -> int:
    node.replace_input_with(0, first.inputs[0])
    remove_if_unused(first)
    return 1


def _merge_transposes(node: ir.Node) -> int:
    first = producer(node.inputs[0], "Transpose")
    inner = None if first is None else get_ints(first, "perm")
    outer = get_ints(node, "perm")
    if first is None or inner is None or outer is None:
        return 0
    node.attributes["perm"] = ir.AttrInt64s("perm", [inner[axis] for axis in outer])
    return _read_instead(node, first)


def _merge_reshapes(model: ir.Model, node: ir.Node) -> int:
    first = producer(node.inputs[0], *_RESHAPING)
    target = None if first is None else _target(node)
    if first is None or target is None:
        return 0
    if node.op_type == "Reshape" and integers(node.inputs[1]) == target:
        return _read_instead(node, first)
    node.op_type = "Reshape"
    node.attributes.clear()
    node.resize_inputs(2)
    node.replace_input_with(1, add_constant(model, np.array(target, np.int64), f"{node.name}/shape"))
    return _read_instead(node, first)


def _target(node: ir.Node) -> list[int] | None:
    """The node's output shape as a Reshape target that does not look at the shape in between."""
    if node.op_type == "Reshape":
        content = integers(node.inputs[1])
        if content is not None and 0 not in content:
            return content
    shape = node.outputs[0].shape
    if shape is None:
        return None
    target = [d if isinstance(d, int) else -1 for d in shape]
    # A dimension of size 0 would mean "copy" and -1 needs the others to be nonzero.
    return target if target.count(-1) <= 1 and math.prod(target) != 0 else None


def _merge_casts(node: ir.Node) -> int:
    first = producer(node.inputs[0], "Cast")
    source = None if first is None else first.inputs[0]
    if first is None or source is None or source.dtype is None or node.inputs[0] is None:
        return 0
    if (source.dtype, node.inputs[0].dtype) not in _EXACT:
        return 0
    return _read_instead(node, first)
