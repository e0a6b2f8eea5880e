"""Rules about operators that the parser does not know."""

from __future__ import annotations

from collections.abc import Iterator

from edgeq.targets.tensorrt.integer_ops import INTEGER_OPS
from edgeq.targets.tensorrt.lint.graph import Graph, Problem

# Operators of com.microsoft that the parser of TensorRT for RTX 1.7 imports without a plugin.
MICROSOFT = frozenset(
    {
        "Attention", "CausalConvWithState", "DequantizeLinear", "GatherND", "Gelu", "GridSample",
        "GroupQueryAttention", "LinearAttention", "MultiHeadAttention", "Pad", "QMoE", "QuantizeLinear",
        "Range", "RotaryEmbedding", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization",
        "Trilu",
    }
)  # fmt: skip
# ONNX operators that the parser of TensorRT for RTX 1.7 does not have, without those named above.
UNKNOWN = frozenset(
    {
        "AffineGrid", "Bernoulli", "BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr",
        "BitwiseXor", "CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence", "CumProd", "DFT",
        "DeformConv", "Det", "ImageDecoder", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix", "Multinomial",
        "NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement", "OptionalHasElement",
        "RegexFullMatch", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase",
        "SequenceInsert", "SequenceLength", "SequenceMap", "SoftmaxCrossEntropyLoss", "SplitToSequence",
        "StringConcat", "StringNormalizer", "StringSplit", "SwiGLU", "TfIdfVectorizer", "Unique",
    }
)  # fmt: skip


def integer_op(graph: Graph) -> Iterator[Problem]:
    """Operators with quantized arithmetic inside."""
    for node in graph.nodes:
        if node.op_type in INTEGER_OPS and node.domain in ("", "com.microsoft"):
            yield Problem(node, f"TensorRT has no {node.op_type}", INTEGER_OPS[node.op_type])


def unknown_op(graph: Graph) -> Iterator[Problem]:
    """Other operators that the parser has not, those of ONNX Runtime included."""
    local = {(function.domain, function.name) for function in graph.model.ir.functions.values()}
    for node in graph.nodes:
        if (node.domain, node.op_type) in local or node.op_type in INTEGER_OPS:
            continue
        if node.domain == "" and node.op_type in UNKNOWN:
            yield Problem(node, f"TensorRT has no {node.op_type}", "Export the model without it.")
        if node.domain == "com.microsoft" and node.op_type not in MICROSOFT:
            yield Problem(
                node,
                f"{node.op_type} is an operator of ONNX Runtime alone",
                "Quantize the model as it was exported, before ONNX Runtime's optimizer fuses it.",
            )
