"""What TensorRT engines can run in INT8, as data.

Each rule was found by building a graph of the op and reading the compiler's layer table;
``tests/targets/tensorrt/test_placement.py`` builds them again. The compiler fuses any chain of elementwise
ops with the matrix product before it, so nothing is rounded within such a chain; an op whose input is
dequantized runs in INT8 only where the rule says so.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from edgeq.calibration.affine import ScaleDtype
from edgeq.targets.capabilities import Capabilities, OpRule
from edgeq.targets.tensorrt.backend.choose import prefers_classic
from edgeq.targets.tensorrt.options import HighPrecision, TensorRTOptions

# What the documentation of TensorRT 10 and 11 allows; TensorRT for RTX fuses others as well.
BLOCK_SIZES = (16, 32, 64, 128)

_FUSED = "computed in float, in one kernel with what stands before or after it where that is possible"
_ELEMENTWISE = OpRule(activations=(0, 1), role="read", note=_FUSED)
_POOL = OpRule(activations=(0,), role="read", note="averages are computed in float")
_MOVE = OpRule(
    activations=(0,), role="read", same_range=True, note="rounding moves past it, so no INT8 form is needed"
)

_INT8_STATIC = {
    "Conv": OpRule(activations=(0, 1), weights={1: 0}, bias=2, float_output=True, note="INT8 convolution"),
    "Gemm": OpRule(
        activations=(0, 1),
        weights={1: 1},
        bias=2,
        float_output=True,
        transposed_by="transB",
        note="INT8 matrix product",
    ),
    "MatMul": OpRule(activations=(0, 1), weights={1: -1}, float_output=True, note="INT8 matrix product"),
    "Einsum": OpRule(activations=(0, 1), inputs=2, float_output=True, note="INT8 matrix product"),
    "Gather": OpRule(
        activations=(0,), weights={0: 0}, role="lookup", note="rows of a table that is stored in INT8"
    ),
    **dict.fromkeys(("Add", "Sub", "Mul", "Max", "Min"), _ELEMENTWISE),
    "Concat": OpRule(activations=(0,), variadic=True, role="read", note=_FUSED),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "ReduceMean"), _POOL),
    **dict.fromkeys(
        (
            "DepthToSpace", "Expand", "Flatten", "GlobalMaxPool", "Identity", "MaxPool", "Reshape", "Slice",
            "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
        ),
        _MOVE,
    ),
    **dict.fromkeys(("Pad", "Resize"), replace(_MOVE, same_range=False)),
}  # fmt: skip

_RECURRENT = "TensorRT computes recurrent layers in float: quantized weights would be widened at every step"
_STATISTICS = "normalization is computed in float: statistics need its range"
_PROBABILITIES = "probabilities need float precision; the matrix product that reads them rounds them"
_FLOAT_REASONS = {
    "ConvTranspose": "TensorRT runs transposed convolutions in float, quantized or not",
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _RECURRENT),
    **dict.fromkeys(
        (
            "BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization",
            "RMSNormalization",
        ),
        _STATISTICS,
    ),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _PROBABILITIES),
    **dict.fromkeys(
        (
            "Cast", "Celu", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish",
            "LeakyRelu", "Log", "Mish", "Neg", "PRelu", "Pow", "Reciprocal", "Relu", "Selu", "Sigmoid",
            "Softplus", "Sqrt", "Swish", "Tanh", "Where",
        ),
        _FUSED,
    ),
}  # fmt: skip

_SCHEME_REASONS = {
    "int8-dynamic": (
        "TensorRT has no operators of dynamic INT8 (DynamicQuantizeLinear, MatMulInteger, ConvInteger)",
        "Take int8-static (with calibration data) or int8-weight (INT8 weights, no data needed).",
    ),
}

_UNUSED_OPTIONS = {
    "saturation_safe": "TensorRT's INT8 kernels add up in 32 bits and do not saturate",
    "accuracy_level": "TensorRT computes with float activations and weights that are expanded to float",
    "symmetric_weights": "TensorRT's INT4 weights have no zero points",
}

# A kernel of its own widens such weights at every inference: SqueezeNet's engine is 1.4 times as large as in
# float16, and no kernel reads the integers.
_WIDENED = "no kernel reads INT8 weights beside float activations here: {0} (int8-static runs it in INT8)"
_WEIGHT_REASONS = {
    "Conv": _WIDENED.format("a convolution stays float"),
    "ConvTranspose": "no kernel reads INT8 weights here: a transposed convolution stays float",
}

_SCALE_DTYPES: dict[HighPrecision, ScaleDtype] = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}

_CAPABILITIES = Capabilities(
    target="tensorrt",
    schemes=("fp32", "fp16", "int8-static", "fp8-static", "int8-weight", "int4-weight"),
    activation_dtype="int8",
    symmetric_activations=True,
    int8_form="INT8 inputs",
    int8_static=MappingProxyType(_INT8_STATIC),
    weight_only=frozenset({"MatMul", "Gemm", "Gather"}),
    weight_note="int8 weights that the kernel itself reads, float activations",
    weight_reasons=MappingProxyType(_WEIGHT_REASONS),
    block_form="dequantize",
    unpacks=frozenset({"single-block", "odd-outputs", "behind-attention"}),
    block_size=128,
    block_sizes=BLOCK_SIZES,
    negative_scales=False,
    fuses_elementwise=True,
    rounds_itself=True,
    float_reasons=MappingProxyType(_FLOAT_REASONS),
    scheme_reasons=MappingProxyType(_SCHEME_REASONS),
    unused_options=MappingProxyType(_UNUSED_OPTIONS),
    saturates=False,
    simulate_in_float=True,
    keeps_absorbed=True,
    float_bias=True,
    weight_form="dequantize",
)


def capabilities(options: TensorRTOptions) -> Capabilities:
    """What engines with these ``options`` can do: scales have the type of everything that is not INT8."""
    found = replace(_CAPABILITIES, scale_dtype=_SCALE_DTYPES[options.precision])
    if options.precision == "fp32" or prefers_classic(options):
        return found
    layers = {name: replace(_INT8_STATIC[name], scales_result=True) for name in ("Conv", "Gemm", "MatMul")}
    return replace(found, int8_static=MappingProxyType({**_INT8_STATIC, **layers}))
