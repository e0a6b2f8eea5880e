"""Which precision a node of ONNX Runtime's optimized graph computes in, and what its kernel is called."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

# Kernels whose inputs and outputs may be float while the arithmetic is INT8.
_DYNAMIC_INT8 = frozenset(
    {
        "DynamicQuantizeMatMul",
        "DynamicQuantizeLSTM",
        "MatMulIntegerToFloat",
        "MatMulInteger",
        "ConvInteger",
        "QAttention",
        "QEmbedLayerNormalization",
    }
)
_QUANTIZED = frozenset({"QGemm", "QMoE"})
_BLOCKED = frozenset({"MatMulNBits", "GatherBlockQuantized", "MatMulBnb4"})
_INT8_TYPES = frozenset({ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16})

# Op of the plan → the kernels that do its work in the optimized graph, besides the op itself.
FAMILIES: dict[str, frozenset[str]] = {
    "Conv": frozenset({"FusedConv", "NhwcFusedConv", "QLinearConv", "ConvInteger", "NhwcConv"}),
    "ConvTranspose": frozenset({"QLinearConvTranspose"}),
    "LSTM": frozenset({"DynamicQuantizeLSTM"}),
    "Gather": frozenset({"GatherBlockQuantized"}),
}
_PRODUCTS = frozenset(
    {
        "MatMul",
        "Gemm",
        "FusedMatMul",
        "FusedMatMulActivation",
        "FusedGemm",
        "QGemm",
        "QLinearMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "MatMulNBits",
        "GemmFloat8",
    }
)
FAMILIES["MatMul"] = FAMILIES["Gemm"] = _PRODUCTS


@dataclass(frozen=True)
class Kernel:
    """``precision`` of the arithmetic, and a name with the details that matter."""

    precision: str
    name: str


def is_kernel_of(op_type: str, node: ir.Node) -> bool:
    """Whether the optimized ``node`` does the work of a planned ``op_type``."""
    if node.op_type in (op_type, f"QLinear{op_type}"):
        return True
    return node.op_type in FAMILIES.get(op_type, ())


def kernel_of(node: ir.Node) -> Kernel:
    """Precision and name of the kernel of an optimized node."""
    if node.op_type in _BLOCKED:
        return _blocked(node)
    if node.op_type in _DYNAMIC_INT8 or node.op_type in _QUANTIZED or node.op_type.startswith("QLinear"):
        return Kernel("int8", node.op_type)
    return Kernel(_precision_of_types(node), node.op_type)


def _blocked(node: ir.Node) -> Kernel:
    bits = node.attributes.get_int("bits", 4)
    details = [f"{bits} bits", f"block {node.attributes.get_int('block_size', 0)}"]
    if node.op_type == "MatMulNBits":
        level = node.attributes.get_int("accuracy_level", 0)
        details.append("int8 activations" if level == 4 else "float activations")
    return Kernel(f"int{bits}", f"{node.op_type} ({', '.join(details)})")


def _precision_of_types(node: ir.Node) -> str:
    """From the types of what it reads first and writes: a float one decides before an integer one."""
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    types = {value.dtype for value in values}
    for dtype, precision in ((ir.DataType.FLOAT, "fp32"), (ir.DataType.FLOAT16, "fp16")):
        if dtype in types and node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            return precision
    moved = values[0].dtype if values else None
    return "int8" if moved in _INT8_TYPES else "other"
