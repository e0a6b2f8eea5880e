"""The one table: MIL op type → kernel. Kernel modules register their kernels here."""

from __future__ import annotations

from collections.abc import Mapping

from edgeq.targets.coreml.interpreter.call import Kernel
from edgeq.targets.coreml.registered import collect

_MODULES = (
    "activation",
    "attention",
    "convolution",
    "elementwise",
    "gather",
    "generate",
    "linear",
    "logic",
    "normalization",
    "pooling",
    "quantization",
    "recurrent",
    "reduction",
    "resample",
    "resize",
    "scatter",
    "shape",
    "slicing",
    "sorting",
    "spatial",
)

KERNELS: Mapping[str, Kernel] = collect("edgeq.targets.coreml.interpreter.kernels", _MODULES, "KERNELS")
