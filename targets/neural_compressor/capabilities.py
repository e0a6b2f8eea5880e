"""What the target can do, as data. Its own quantizer places INT8; the shared planner is not asked."""

from __future__ import annotations

from types import MappingProxyType

from edgeq.targets.capabilities import Capabilities

_SCHEME_REASONS = {
    "int8-weight": (
        "PyTorch's compiler has no kernel for INT8 weights on float activations, and would expand them",
        "Take int8-dynamic, which rounds activations at run time and needs no data either.",
    ),
    "fp16": (
        "x86 CPUs without AMX or AVX512-FP16 compute float16 in float32",
        "Take fp32 or an INT8 scheme.",
    ),
}

_UNUSED_OPTIONS = {
    "accuracy_level": "it is of kernels of ONNX Runtime",
}

CAPABILITIES = Capabilities(
    target="neural-compressor",
    schemes=("fp32", "int8-static", "int8-dynamic", "int4-weight"),
    scheme_reasons=MappingProxyType(_SCHEME_REASONS),
    unused_options=MappingProxyType(_UNUSED_OPTIONS),
    learns_weights=True,
)
