"""Rules about operators that the parser does not know."""

from __future__ import annotations

from collections.abc import Iterator

from edgeq.targets.tensorrt.lint.graph import Graph, Problem

_STATIC = (
    "Quantize statically with QuantizeLinear and DequantizeLinear: dynamic INT8 is no scheme of TensorRT."
)
_QDQ = "Quantize in the QDQ form (quantize_static: quant_format=QuantFormat.QDQ)."
# Operators that hold quantized arithmetic in another form → what to do instead.
INTEGER_OPS = {
    "DynamicQuantizeLinear": _STATIC,
    "MatMulInteger": _STATIC,
    "ConvInteger": _STATIC,
    "DynamicQuantizeMatMul": _STATIC,
    "DynamicQuantizeLSTM": _STATIC,
    "MatMulIntegerToFloat": _STATIC,
    "QLinearConv": _QDQ,
    "QLinearMatMul": _QDQ,
}


def integer_op(graph: Graph) -> Iterator[Problem]:
    """Operators with quantized arithmetic inside."""
    for node in graph.nodes:
        if node.op_type in INTEGER_OPS and node.domain in ("", "com.microsoft"):
            yield Problem(node, f"TensorRT has no {node.op_type}", INTEGER_OPS[node.op_type])
