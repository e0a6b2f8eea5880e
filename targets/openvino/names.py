"""The names of ONNX nodes in OpenVINO's graphs: how they are written, and found again."""

from __future__ import annotations

import re
from collections.abc import Iterator

import onnx_ir as ir

# OpenVINO separates the names of the layers that a kernel computes by commas.
_SEPARATOR = ","
# What its transformations append to the names of the layers that they split or move.
_APPENDED = re.compile(r"(_original|/WithoutBiases|/Dequantization\w*|/transpose_[ab])$")


def layer_name(name: str) -> str:
    """The name that the ONNX node ``name`` has in the IR."""
    return name.replace(_SEPARATOR, ";")


def name_layers(model: ir.Model) -> None:
    """Give every node of ``model`` its layer name, in place; they must have names."""
    for node in model.graph.all_nodes():
        node.name = layer_name(node.name or "")


def names_of(node: ir.Node) -> Iterator[str]:
    """The names under which OpenVINO may list ``node``: its own, or those of the outputs that it writes."""
    yield layer_name(node.name or "")
    for output in node.outputs:
        yield layer_name(output.name or "")


def originals(text: str) -> Iterator[str]:
    """The layer names in ``originalLayersNames``, as they are and without what OpenVINO appends."""
    for part in text.split(_SEPARATOR):
        yield part
        while (shorter := _APPENDED.sub("", part)) != part:
            part = shorter
            yield part
