"""The one table: MIL op type → kernel. Kernel modules register their kernels here."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

from edgeq.targets.coreml.interpreter.call import Kernel

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


def _collect() -> Mapping[str, Kernel]:
    table: dict[str, Kernel] = {}
    for module in _MODULES:
        kernels = import_module(f"edgeq.targets.coreml.interpreter.kernels.{module}").KERNELS
        twice = set(table) & set(kernels)
        if twice:
            raise RuntimeError(f"two kernels for {sorted(twice)}")
        table.update(kernels)
    return MappingProxyType(table)


KERNELS: Mapping[str, Kernel] = _collect()
