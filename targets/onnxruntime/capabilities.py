"""What ONNX Runtime's CPU kernels can do, as data.

Each INT8 rule was found by running a QDQ graph of the one op and reading ONNX Runtime's optimized graph;
``tests/compiler/test_static_kernels.py`` runs all of them again.
"""

from __future__ import annotations

from types import MappingProxyType

from edgeq.targets.capabilities import Capabilities, OpRule

_MOVE = OpRule(activations=(0,), role="move", same_range=True, note="only moves INT8 values")
_JOIN = OpRule(activations=(0,), role="join")

_INT8_STATIC = {
    "Conv": OpRule(activations=(0,), weights={1: 0}, bias=2, note="QLinearConv"),
    "Gemm": OpRule(
        activations=(0,), weights={1: 1}, bias=2, float_output=True, transposed_by="transB", note="QGemm"
    ),
    # A product of two activations is u8 by u8, which VNNI and AMX do not speed up. Attention in float is one
    # kernel without roundings of queries, keys, values and probabilities, and at least as fast.
    "MatMul": OpRule(
        activations=(0, 1),
        weights={1: -1},
        float_output=True,
        of_weights=True,
        note="QLinearMatMul or MatMulIntegerToFloat",
    ),
    "Gather": OpRule(activations=(0,), weights={0: -1}, role="move", same_range=True, note="Gather"),
    "Add": OpRule(activations=(0, 1), role="join", note="QLinearAdd"),
    "Mul": OpRule(activations=(0, 1), role="join", note="QLinearMul"),
    "Where": OpRule(activations=(1, 2), role="join", note="QLinearWhere"),
    "Concat": OpRule(activations=(0,), variadic=True, role="join", note="QLinearConcat"),
    "AveragePool": OpRule(activations=(0,), role="join", ranks=(3, 4, 5), note="QLinearAveragePool"),
    "GlobalAveragePool": OpRule(activations=(0,), role="join", note="QLinearGlobalAveragePool"),
    "LeakyRelu": OpRule(activations=(0,), role="join", note="QLinearLeakyRelu"),
    "Sigmoid": OpRule(activations=(0,), role="join", fixed_output=(1 / 256, 0), note="QLinearSigmoid"),
    "Relu": OpRule(activations=(0,), role="absorb", note="absorbed by the rounding to INT8"),
    "Clip": OpRule(activations=(0,), role="absorb", note="absorbed by the rounding to INT8"),
    "MaxPool": _MOVE,
    "Reshape": _MOVE,
    "Flatten": _MOVE,
    "Squeeze": _MOVE,
    "Unsqueeze": _MOVE,
    "Transpose": _MOVE,
    "Slice": _MOVE,
    "Split": _MOVE,
    "Expand": _MOVE,
    "Tile": _MOVE,
    "Identity": _MOVE,
    "DepthToSpace": _MOVE,
    "Resize": OpRule(
        activations=(0,), role="move", same_range=True, attributes={"mode": ("nearest",)}, note="Resize"
    ),
}

_NO_KERNEL = "ONNX Runtime CPU has no INT8 kernel for it"
_FLOAT_REASONS = {
    "ConvTranspose": _NO_KERNEL,
    "LSTM": "recurrent state loses accuracy in static INT8; the scheme int8-dynamic covers it",
    "GRU": "recurrent state loses accuracy in static INT8 and ONNX Runtime CPU has no kernel for it",
    "RNN": _NO_KERNEL,
    "Einsum": _NO_KERNEL,
    "Attention": "the fused attention kernel computes in float",
    "MultiHeadAttention": "the fused attention kernel computes in float",
    "LayerNormalization": "normalization is computed in float: statistics need its range",
    "RMSNormalization": "normalization is computed in float: statistics need its range",
    "InstanceNormalization": "normalization is computed in float: statistics need its range",
    "GroupNormalization": "normalization is computed in float: statistics need its range",
    "BatchNormalization": _NO_KERNEL,
    "Softmax": "probabilities and attention scores need float precision",
    "LogSoftmax": _NO_KERNEL,
    "Gelu": "ONNX Runtime CPU fuses it in float with the bias before it",
    "Pad": _NO_KERNEL,
    "ReduceMean": _NO_KERNEL,
}

# Kernels that quantize activations at run time and pay (measured: see compiler/quantize/dynamic.py).
_INT8_DYNAMIC = frozenset({"MatMul", "Gemm", "LSTM"})

_WEIGHT_ONLY = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "LSTM", "GRU", "RNN", "Gather"})

# Sums, powers and exponentials leave float16's range; scales and indices lose accuracy in it.
_FP16_UNSAFE = frozenset(
    {
        "Cos", "CumSum", "DFT", "Det", "Exp", "GRU", "GridSample", "GroupNormalization",
        "InstanceNormalization", "LSTM", "LayerNormalization", "Log", "LogSoftmax",
        "LpNormalization", "MeanVarianceNormalization", "NonMaxSuppression", "Pow",
        "RMSNormalization", "RNN", "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum",
        "ReduceLogSumExp", "ReduceMean", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Resize",
        "RoiAlign", "STFT", "Sin", "Softmax", "Softplus", "TopK", "Transpose", "Upsample",
    }
)  # fmt: skip

_RECURRENT = "rounding errors of a float16 state would add up over the sequence"
_FP16_REASONS = {
    "LSTM": _RECURRENT,
    "GRU": _RECURRENT,
    "RNN": _RECURRENT,
    "Transpose": "ONNX Runtime 1.31 crashes on a float16 Transpose before a MatMul",
}

CAPABILITIES = Capabilities(
    target="onnxruntime",
    schemes=("fp32", "fp16", "int8-static", "int8-dynamic", "int8-weight", "int4-weight"),
    activation_dtype="uint8",
    symmetric_activations=False,
    int8_static=MappingProxyType(_INT8_STATIC),
    int8_dynamic=_INT8_DYNAMIC,
    weight_only=_WEIGHT_ONLY,
    block_sizes=(16, 32, 64, 128, 256),
    fp16_unsafe=_FP16_UNSAFE,
    fp16_reasons=MappingProxyType(_FP16_REASONS),
    float_reasons=MappingProxyType(_FLOAT_REASONS),
    graph_methods=MappingProxyType({"int4-weight": ("rtn", "gptq")}),
)
