"""Putting one kernel of ONNX Runtime in the place of several nodes, so that their names stay known."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgeq.compiler.normalize.editing import only_user, producer
from edgeq.compiler.quantize.rewriter import Editor

# The entry of a node's metadata that lists the names of the nodes it was made of.
FUSED = "edgeq.fused"


def replace_by(
    edit: Editor,
    last: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    parts: Sequence[ir.Node],
    *,
    domain: str = "",
    attributes: dict[str, int | float] | None = None,
) -> None:
    """Put one node in the place of ``last``, under its name; it takes over ``parts`` as well."""
    made = edit.node(op_type, inputs, last.name or "", attributes=attributes, domain=domain, final=True)
    result = last.outputs[0]
    made.outputs[0].type, made.outputs[0].shape = result.type, result.shape
    names = [part.name for part in parts if part.name and part is not last]
    if names:
        made.metadata_props[FUSED] = "\n".join(names)
    edit.replace(last, [made])


def fused_names(node: ir.Node) -> list[str]:
    """The names of the nodes that ``node`` was made of."""
    listed = node.metadata_props.get(FUSED, "")
    return listed.split("\n") if listed else []


def behind_roundings(value: ir.Value) -> ir.Value:
    """``value`` as its only reader gets it, behind the pairs of QuantizeLinear and DequantizeLinear."""
    while True:
        quantize = only_user(value)
        if quantize is None or quantize.op_type != "QuantizeLinear":
            return value
        dequantize = only_user(quantize.outputs[0])
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            return value
        value = dequantize.outputs[0]


def transposed_from(value: ir.Value | None, perm: list[int]) -> ir.Value | None:
    """What a Transpose by ``perm`` made ``value`` of."""
    node = producer(value, "Transpose")
    if node is None or list(node.attributes.get_ints("perm", ())) != perm:
        return None
    return node.inputs[0]
