"""What OpenVINO's execution graph tells of every layer: which kernel computes it, in which precision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgeq.targets.openvino.names import originals

# The end of ``primitiveType`` → precision of the arithmetic. ``runtimePrecision`` is that of the weights.
_ARITHMETIC = {
    "i8": "int8",
    "u8": "int8",
    "i4": "int4",
    "u4": "int4",
    "f32": "fp32",
    "f16": "fp16",
    "bf16": "bf16",
}
_STORED = {"i8": "int8-weight", "u8": "int8-weight", "i4": "int4", "u4": "int4", "f16": "fp16-weight"}
_NO_LAYERS = frozenset({"Const", "Input", "Output"})


@dataclass(frozen=True)
class Kernel:
    """One node of the execution graph.

    ``precision`` is that of the arithmetic, or of the weights (``int8-weight``, ``int4``, ``fp16-weight``)
    where it reads them in a smaller form than it computes in; ``other`` where no floats are involved.
    """

    layer_type: str
    precision: str
    name: str
    layers: frozenset[str]


def kernels(compiled: Any) -> list[Kernel]:
    """The kernels of an ``openvino.CompiledModel``, in the order of execution."""
    return list(_kernels(compiled))


def _kernels(compiled: Any) -> Iterator[Kernel]:
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        layer_type = _text(info, "layerType")
        if layer_type in _NO_LAYERS:
            continue
        primitive, read = _text(info, "primitiveType"), _text(info, "runtimePrecision")
        yield Kernel(
            layer_type,
            _precision(primitive, read),
            f"{layer_type} {primitive} ({read} in, {_text(info, 'outputPrecisions')} out)",
            frozenset(originals(_text(info, "originalLayersNames"))),
        )


def _precision(primitive: str, read: str) -> str:
    computed = _ARITHMETIC.get(primitive.rpartition("_")[2].lower(), "other")
    if computed in ("fp32", "bf16", "fp16") and read in _STORED and _ARITHMETIC.get(read) != computed:
        return _STORED[read]
    return computed


def _text(info: Any, key: str) -> str:
    return info[key].astype(str) if key in info else ""
