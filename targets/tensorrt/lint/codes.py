"""Rules about stored codes: quantized constants belong directly in front of a DequantizeLinear."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from edgeq.targets.tensorrt.integer_ops import INTEGER_OPS
from edgeq.targets.tensorrt.lint.graph import DEQUANTIZE, Graph, Problem, is_quantizer, rank

_CODES = (ir.DataType.INT8, ir.DataType.INT4, ir.DataType.FLOAT8E4M3FN)
# These read constants while the model is parsed; a constant's own Identity is looked through.
_READ_WHEN_PARSED = ("Clip", "Identity")


def scalar_codes(graph: Graph) -> Iterator[Problem]:
    """A quantized constant without dimensions: the parser reshapes it, and then it stands alone."""
    for quantizer in graph.quantizers.values():
        stored = quantizer.node.op_type == DEQUANTIZE and quantizer.source.producer() is None
        if stored and graph.constants.known(quantizer.source) and rank(quantizer.source) == 0:
            yield Problem(
                quantizer.node,
                "it dequantizes a constant without dimensions",
                "Keep this constant in float, or give it the shape [1].",
            )


def stray_codes(graph: Graph) -> Iterator[Problem]:
    """A quantized constant that another op reads before it is dequantized."""
    for node in graph.nodes:
        if node.domain or is_quantizer(node) or node.op_type in (*_READ_WHEN_PARSED, *INTEGER_OPS):
            continue
        for value in node.inputs:
            if value is not None and graph.constants.dtype(value) in _CODES and graph.constants.known(value):
                yield Problem(
                    node,
                    f"it reads the quantized constant {value.name!r}, which only a DequantizeLinear may",
                    f"Put the DequantizeLinear before the {node.op_type}.",
                )
                break
