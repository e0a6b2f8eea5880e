"""What OpenVINO's CPU plugin can run in INT8, as data.

Each rule was found by compiling a graph of the op and reading the execution graph;
``tests/targets/openvino/test_grid.py`` compiles them again.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from edgeq.targets.capabilities import Capabilities, OpRule

_ABSORB = OpRule(activations=(0,), role="absorb", note="computed before the result is rounded to INT8")
_MOVE = OpRule(activations=(0,), role="move", same_range=True, note="only moves INT8 values")
_POOL = OpRule(activations=(0,), role="join", float_output=True, joined=True, note="INT8 pooling")

_INT8_STATIC = {
    "Conv": OpRule(
        activations=(0,), weights={1: 0}, bias=2, float_output=True, joined=True, note="INT8 convolution"
    ),
    "Gemm": OpRule(
        activations=(0,),
        weights={1: 1},
        bias=2,
        float_output=True,
        transposed_by="transB",
        note="INT8 fully connected layer",
    ),
    "MatMul": OpRule(
        activations=(0,),
        weights={1: -1},
        float_output=True,
        of_weights=True,
        note="INT8 fully connected layer",
    ),
    # Its result is stored in one byte: with float results ResNet-20 takes 1.04 times as long.
    "Add": OpRule(activations=(0, 1), role="join", note="added within the convolution before it"),
    "Concat": OpRule(activations=(0,), variadic=True, role="join", note="concatenates INT8 values"),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "ReduceMean"), _POOL),
    "Gather": OpRule(
        activations=(0,), weights={0: 0}, role="lookup", note="rows of a table that is stored in INT8"
    ),
    **dict.fromkeys(
        (
            "Clip", "Elu", "Gelu", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu",
            "Sigmoid", "Swish", "Tanh",
        ),
        _ABSORB,
    ),
    **dict.fromkeys(
        (
            "DepthToSpace", "Expand", "Flatten", "GlobalMaxPool", "Identity", "MaxPool", "Reshape", "Slice",
            "Split", "Squeeze", "Transpose", "Unsqueeze",
        ),
        _MOVE,
    ),
    "Resize": OpRule(
        activations=(0,), role="move", same_range=True, attributes={"mode": ("nearest",)}, note="INT8 resize"
    ),
}  # fmt: skip

_RECURRENT = "recurrent state loses accuracy in static INT8"
_STATISTICS = "normalization is computed in float: statistics need its range"
_IN_FLOAT = "OpenVINO computes it in float, in one kernel with its neighbours where that is possible"
_FLOAT_REASONS = {
    "ConvTranspose": "OpenVINO computes it in float on CPUs with AVX2",
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _RECURRENT),
    **dict.fromkeys(
        (
            "BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization",
            "RMSNormalization",
        ),
        _STATISTICS,
    ),
    **dict.fromkeys(("Softmax", "LogSoftmax"), "probabilities and attention scores need float precision"),
    **dict.fromkeys(
        ("Div", "Einsum", "HardSigmoid", "Mul", "Pad", "SpaceToDepth", "Sub", "Tile", "Where"), _IN_FLOAT
    ),
}  # fmt: skip

_SCHEME_REASONS = {
    "int8-dynamic": (
        "OpenVINO rounds activations at run time by an option of its runtime, and only on CPUs with INT8 dot "
        "products (VNNI); none was there to prove it on, and elsewhere products silently stay in float",
        "Take int8-static (with calibration data) or int8-weight (INT8 weights, no data needed).",
    ),
}

_UNUSED_OPTIONS = {
    "accuracy_level": "the IR is compiled without run-time rounding of activations",
}

CAPABILITIES = Capabilities(
    target="openvino",
    schemes=("fp32", "fp16", "int8-static", "int8-weight", "int4-weight"),
    activation_dtype="uint8",
    symmetric_activations=False,
    int8_form="INT8 inputs",
    int8_static=MappingProxyType(_INT8_STATIC),
    weight_only=frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "Gather", "LSTM", "GRU", "RNN"}),
    block_form="dequantize",
    block_sizes=(16, 32, 64, 128, 256),
    float_reasons=MappingProxyType(_FLOAT_REASONS),
    scheme_reasons=MappingProxyType(_SCHEME_REASONS),
    unused_options=MappingProxyType(_UNUSED_OPTIONS),
    pairs_in_position=True,
    simulate_in_float=True,
    keeps_absorbed=True,
    float_bias=True,
    negative_scales=False,
    weight_form="dequantize",
    misreads_transposed=True,
    rounds_itself=True,
    graph_methods=MappingProxyType({"int4-weight": ("rtn", "gptq")}),
)

# What NNCF places is its own: of the rules above only those count that say what OpenVINO has kernels for.
NNCF_CAPABILITIES = replace(
    CAPABILITIES, block_sizes=(16, 32, 64, 128, 256), block_size=128, graph_methods=MappingProxyType({})
)
