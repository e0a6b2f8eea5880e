"""What TensorRT engines can run in INT8, as data.

Each rule was found by building a graph of the op and reading the compiler's layer table;
``tests/targets/tensorrt/test_placement.py`` builds them again. The compiler fuses any chain of elementwise
ops with the matrix product before it, so nothing is rounded within such a chain; an op whose input is
dequantized runs in INT8 only where the rule says so.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from edgeq.targets.base import Capabilities, OpRule
from edgeq.targets.tensorrt.options import TensorRTOptions

_MOVE = OpRule(activations=(0,), role="move", same_range=True, note="moves INT8 values")
_ABSORB = OpRule(activations=(0,), role="absorb", note="computed before the result is rounded to INT8")

_INT8_STATIC = {
    "Conv": OpRule(activations=(0,), weights={1: 0}, bias=2, float_output=True, note="INT8 convolution"),
    "Gemm": OpRule(
        activations=(0,),
        weights={1: 1},
        bias=2,
        float_output=True,
        transposed_by="transB",
        note="INT8 matrix product",
    ),
    "MatMul": OpRule(activations=(0, 1), weights={1: -1}, float_output=True, note="INT8 matrix product"),
    "MaxPool": _MOVE,
    "Relu": _ABSORB,
    "Clip": _ABSORB,
}

_RECURRENT = "TensorRT has no INT8 kernel of recurrent layers"
_FLOAT_REASONS = {
    "ConvTranspose": "TensorRT runs transposed convolutions in float, quantized or not",
    "LSTM": _RECURRENT,
    "GRU": _RECURRENT,
    "RNN": _RECURRENT,
}

_SCHEME_REASONS = {
    "int8-dynamic": (
        "TensorRT has none of the operators of dynamic INT8 (DynamicQuantizeLinear, MatMulInteger, ConvInteger)",
        "Take int8-static (with calibration data) or int8-weight (INT8 weights, no data needed).",
    ),
}

_UNUSED_OPTIONS = {
    "saturation_safe": "TensorRT's INT8 kernels add up in 32 bits and do not saturate",
    "accuracy_level": "TensorRT computes with float activations and weights that are expanded to float",
}

_CAPABILITIES = Capabilities(
    target="tensorrt",
    schemes=("fp32", "fp16", "int8-static", "int8-weight", "int4-weight"),
    activation_dtype="int8",
    symmetric_activations=True,
    int8_form="INT8 inputs",
    int8_static=MappingProxyType(_INT8_STATIC),
    weight_only=frozenset({"MatMul", "Gemm", "Conv", "Gather"}),
    block_sizes=(64, 128),
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
    if options.precision == "fp16":
        return replace(_CAPABILITIES, scale_dtype="float16")
    return _CAPABILITIES
