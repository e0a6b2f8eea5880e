"""The names of ONNX nodes in OpenVINO's graphs: how they are written, and found again."""

from __future__ import annotations

import re
from collections.abc import Iterator

import onnx_ir as ir

# OpenVINO separates the names of the layers that a kernel computes by commas.
_SEPARATOR = ","
# A name of the form that OpenVINO gives to layers that have none.
_NUMBERED = re.compile(r"[A-Z]\w*_\d+")
# What its transformations append to the names of the layers that they split or move.
_APPENDED = re.compile(
    r"(_original|/WithoutBiases|/Dequantization\w*|/transpose_[ab]|/sink_port_\d+|/made:[\w.]+)$"
)


def layer_name(name: str) -> str:
    """The name that the ONNX node ``name`` has in the IR."""
    plain = name.replace(_SEPARATOR, ";")
    return f"onnx/{plain}" if _NUMBERED.fullmatch(plain) else plain


def name_layers(model: ir.Model) -> None:
    """Give every node of ``model`` its layer name, in place; they must have names."""
    for node in model.graph.all_nodes():
        node.name = layer_name(node.name or "")


def names_of(node: ir.Node) -> Iterator[str]:
    """The names under which OpenVINO may list ``node``: its own, or those of the outputs that it writes."""
    yield node.name or ""
    for output in node.outputs:
        yield output.name or ""


def is_anonymous(name: str) -> bool:
    """Whether OpenVINO has made up ``name`` for a layer; constants keep what they were folded from."""
    return _NUMBERED.fullmatch(name) is not None


def made_for(owner: str, kind: str, number: int) -> str:
    """The name of an anonymous layer that was made for the layer ``owner``."""
    return f"{owner}/made:{kind}_{number}"


def originals(text: str) -> Iterator[str]:
    """The layer names in ``originalLayersNames``, as they are and without what was appended to them."""
    for part in text.split(_SEPARATOR):
        yield part
        while (shorter := _APPENDED.sub("", part)) != part:
            part = shorter
            yield part
