"""What OpenVINO's CPU plugin can run in INT8, as data.

Each rule was found by compiling a graph of the op and reading the execution graph;
``tests/targets/openvino/test_grid.py`` compiles them again.
"""

from __future__ import annotations

from types import MappingProxyType

from edgeq.targets.base import Capabilities, OpRule

_ABSORB = OpRule(activations=(0,), role="absorb", note="computed before the result is rounded to INT8")
_MOVE = OpRule(activations=(0,), role="move", same_range=True, note="only moves INT8 values")
_JOIN = OpRule(activations=(0,), role="join", float_output=True, joined=True, note="pool")

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
    "MatMul": OpRule(activations=(0,), weights={1: -1}, float_output=True, note="INT8 fully connected layer"),
    "Add": OpRule(activations=(0, 1), role="join", float_output=True, joined=True, note="add"),
    "Concat": OpRule(activations=(0,), variadic=True, role="join", note="concatenates INT8 values"),
    "AveragePool": _JOIN,
    "GlobalAveragePool": _JOIN,
    "Gather": OpRule(
        activations=(0,), weights={0: 0}, role="lookup", note="rows of a table that is stored in INT8"
    ),
    **dict.fromkeys(
        (
            "Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Sigmoid", "HardSigmoid", "HardSwish", "Swish",
            "Tanh", "Gelu",
        ),
        _ABSORB,
    ),
    **dict.fromkeys(
        (
            "MaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split",
            "Identity", "DepthToSpace", "SpaceToDepth",
        ),
        _MOVE,
    ),
}  # fmt: skip

_RECURRENT = "recurrent state loses accuracy in static INT8"
_STATISTICS = "normalization is computed in float: statistics need its range"
_FLOAT_REASONS = {
    "ConvTranspose": "OpenVINO's transposed convolution",
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _RECURRENT),
    **dict.fromkeys(
        (
            "BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization",
            "RMSNormalization",
        ),
        _STATISTICS,
    ),
    **dict.fromkeys(("Softmax", "LogSoftmax"), "probabilities and attention scores need float precision"),
}  # fmt: skip

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
    pairs_in_position=True,
    simulate_in_float=True,
    keeps_absorbed=True,
    float_bias=True,
    negative_scales=False,
    weight_form="dequantize",
    rounds_itself=True,
)
