"""Operators that hold quantized arithmetic in a form that TensorRT has not, and what to write instead."""

from __future__ import annotations

from collections.abc import Mapping

STATIC = "TensorRT has no dynamic INT8: quantize statically, with QuantizeLinear and DequantizeLinear."
QDQ = "Quantize in the QDQ form (quantize_static: quant_format=QuantFormat.QDQ)."
BLOCKS = "Write the weights as a DequantizeLinear with block_size, and a MatMul."

INTEGER_OPS: Mapping[str, str] = {
    "DynamicQuantizeLinear": STATIC, "MatMulInteger": STATIC, "ConvInteger": STATIC,
    "DynamicQuantizeMatMul": STATIC, "DynamicQuantizeLSTM": STATIC, "MatMulIntegerToFloat": STATIC,
    "MatMulInteger16": STATIC, "QAttention": STATIC, "QEmbedLayerNormalization": STATIC, "QGemm": QDQ,
    "QLinearConv": QDQ, "QLinearMatMul": QDQ, "QLinearAdd": QDQ, "QLinearAveragePool": QDQ,
    "QLinearConcat": QDQ, "QLinearGlobalAveragePool": QDQ, "QLinearLeakyRelu": QDQ, "QLinearMul": QDQ,
    "QLinearReduceMean": QDQ, "QLinearSigmoid": QDQ, "QLinearSoftmax": QDQ, "QLinearWhere": QDQ,
    "MatMulNBits": BLOCKS, "MatMulBnb4": BLOCKS, "MatMulFpQ4": BLOCKS,
    "GatherBlockQuantized": "Write the table as a DequantizeLinear, with a Gather.",
}  # fmt: skip
