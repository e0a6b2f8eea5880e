"""What Core ML packages can hold, as data.

The rules follow the patterns that Apple's own quantizer makes (coremltools.optimize, convolutions, linear
layers, additions and pools with the activation function behind them): rounded inputs, float16 arithmetic or
the INT8 path of the Neural Engine in between, rounded result. Reshapes, transposes and concatenations stay
between the roundings in float: a pair of quantize and dequantize on each side of them would be work only.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from edgeq.targets.capabilities import Capabilities, OpRule

_JOIN = OpRule(activations=(0,), role="join", float_output=True, note="pool")
_ABSORB = OpRule(activations=(0,), role="absorb", note="computed before the result is rounded to INT8")

_INT8_STATIC = {
    "Conv": OpRule(
        activations=(0,), weights={1: 0}, bias=2, float_output=True, joined=True, note="conv, W8A8"
    ),
    "ConvTranspose": OpRule(
        activations=(0,),
        weights={1: 1},
        bias=2,
        float_output=True,
        joined=True,
        note="conv_transpose, W8A8",
    ),
    "Gemm": OpRule(
        activations=(0,),
        weights={1: 1},
        bias=2,
        float_output=True,
        transposed_by="transB",
        note="linear, W8A8",
    ),
    "MatMul": OpRule(activations=(0, 1), weights={1: -1}, float_output=True, note="matmul, W8A8"),
    "Gather": OpRule(
        activations=(0,), weights={0: 0}, role="lookup", note="gather of a table that is stored in INT8"
    ),
    "Add": OpRule(activations=(0, 1), role="join", float_output=True, joined=True, note="add"),
    "AveragePool": _JOIN,
    "GlobalAveragePool": _JOIN,
    "MaxPool": OpRule(
        activations=(0,), role="move", same_range=True, note="picks INT8 values, its range is its input's"
    ),
    "Relu": _ABSORB,
    "Clip": _ABSORB,
    "LeakyRelu": _ABSORB,
    "PRelu": _ABSORB,
    "Elu": _ABSORB,
    "Sigmoid": _ABSORB,
    "HardSigmoid": _ABSORB,
    "HardSwish": _ABSORB,
    "Swish": _ABSORB,
    "Tanh": _ABSORB,
    "Gelu": _ABSORB,
}

_ONLY_MOVES = "values pass it in float: rounding before and after it would be work without gain"
_NORMALIZED = "normalization is computed in float: statistics need its range"
_RECURRENT = "recurrent state loses accuracy in static INT8"
_NO_PATTERN = "only convolutions, matrix products, additions and pools have an INT8 form"
_FLOAT_REASONS = {
    "LSTM": _RECURRENT,
    "GRU": _RECURRENT,
    "RNN": _RECURRENT,
    "Einsum": _NO_PATTERN,
    "Mul": _NO_PATTERN,
    "Sub": _NO_PATTERN,
    "Div": _NO_PATTERN,
    "Attention": "the fused attention computes in float",
    "MultiHeadAttention": "the fused attention computes in float",
    "LayerNormalization": _NORMALIZED,
    "RMSNormalization": _NORMALIZED,
    "InstanceNormalization": _NORMALIZED,
    "GroupNormalization": _NORMALIZED,
    "BatchNormalization": _NORMALIZED,
    "Softmax": "probabilities and attention scores need float precision",
    "LogSoftmax": "probabilities and attention scores need float precision",
    **dict.fromkeys(
        (
            "Concat", "DepthToSpace", "Expand", "Flatten", "Identity", "Pad", "Reshape", "Resize", "Slice",
            "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
        ),
        _ONLY_MOVES,
    ),
}  # fmt: skip

_SCHEME_REASONS = {
    "int8-dynamic": (
        "Core ML has constant scales only, so the range of an activation cannot be found at run time",
        "Take int8-weight (INT8 weights, no data needed) or int8-static (with calibration data).",
    ),
}

_UNUSED_OPTIONS = {
    "saturation_safe": "Core ML's INT8 arithmetic does not saturate",
    "accuracy_level": "Core ML computes with float activations and weights that are expanded to float",
}

# The shared plan's uint8 activations become int8: the same scales, zero points 128 lower. Measured on the QDQ
# models in float arithmetic, labelled sets of the development data, FP32 → int8 with zero points (this),
# without zero points, without but uint8 where a tensor is never negative:
#   SqueezeNet 1.1  73.69 → 73.08, 72.92, 73.23      DS-CNN (keywords)       91.20 → 91.60, 90.40, 90.80
#   ResNet-20       81.03 → 81.20, 81.00, 81.13      MobileNet v1 (person)   85.00 → 83.93, 85.00, 83.93
#   ResNet-8        76.13 → 76.07, 76.20, 76.03      MiniLM (F1)             88.90 → 89.10, 89.23, 89.06
# Most are within the sets' noise (one image of the person set is 0.36 points); on the keywords zero points
# bring 8 dB, because spectra lie on one side of zero.
CAPABILITIES = Capabilities(
    target="coreml",
    schemes=("fp32", "fp16", "int8-static", "int8-weight", "int4-weight", "palettize-6", "palettize-4"),
    activation_dtype="int8",
    symmetric_activations=False,
    int8_form="INT8 inputs",
    int8_static=MappingProxyType(_INT8_STATIC),
    weight_only=frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "Gather"}),
    block_sizes=(16, 32, 64, 128, 256),
    float_reasons=MappingProxyType(_FLOAT_REASONS),
    scheme_reasons=MappingProxyType(_SCHEME_REASONS),
    unused_options=MappingProxyType(_UNUSED_OPTIONS),
    saturates=False,
    simulate_in_float=True,
    keeps_absorbed=True,
    float_bias=True,
    scale_dtype="float16",
    negative_scales=False,
    weight_form="dequantize",
    rounds_itself=True,
)

# Without zero points, as Apple's own quantizer makes activations: uint8 where a tensor is never negative.
SYMMETRIC = replace(CAPABILITIES, symmetric_activations=True, unsigned_positive=True)
