"""Float weights as float16: rounded in the ONNX model, so that the IR can be compared with it exactly."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

# What a conversion costs in model.xml is more than smaller constants save in model.bin.
SMALLEST = 512
_LARGEST = float(np.finfo(np.float16).max)
# Scales are part of the rounding, which would be another one.
_ROUNDING = frozenset({"QuantizeLinear", "DequantizeLinear"})


def round_to_half(model: ir.Model, keep: Collection[str]) -> tuple[str, ...]:
    """Round large float32 constants to numbers of float16, in place, but those that a node in ``keep`` reads.

    Returns the names of those that do not fit float16 and stay as they are.
    """
    too_large = []
    for value in model.graph.initializers.values():
        if not _is_large_float(value) or any(_needs_all(*use, keep) for use in value.uses()):
            continue
        assert value.const_value is not None
        array = value.const_value.numpy()
        if _fits(array):
            value.const_value = ir.tensor(array.astype(np.float16).astype(np.float32), name=value.name)
        else:
            too_large.append(value.name or "")
    return tuple(too_large)


def store_exact_halves(network: Any) -> None:
    """Store the large float32 constants of an ``openvino.Model`` that are numbers of float16 so, in place."""
    import openvino
    from openvino import opset13

    for layer in network.get_ordered_ops():
        if layer.get_type_name() != "Constant" or layer.get_element_type() != openvino.Type.f32:
            continue
        array = np.array(layer.get_data())
        if array.size < SMALLEST or not _is_exact(array):
            continue
        name = layer.get_friendly_name()
        stored = opset13.constant(array.astype(np.float16), dtype=np.float16, name=f"{name}_fp16")
        widened = opset13.convert(stored, "f32", name=name)
        for target in list(layer.output(0).get_target_inputs()):
            target.replace_source_output(widened.output(0))


def _needs_all(node: ir.Node, index: int, keep: Collection[str]) -> bool:
    return (node.op_type in _ROUNDING and index > 0) or (node.name or "") in keep


def _is_large_float(value: ir.Value) -> bool:
    tensor = value.const_value
    if tensor is None or value.is_graph_input():
        return False
    return tensor.dtype == ir.DataType.FLOAT and tensor.size >= SMALLEST


def _fits(array: npt.NDArray[Any]) -> bool:
    return bool(np.isfinite(array).all() and np.abs(array).max(initial=0) <= _LARGEST)


def _is_exact(array: npt.NDArray[Any]) -> bool:
    return _fits(array) and bool(np.array_equal(array.astype(np.float16).astype(np.float32), array))
