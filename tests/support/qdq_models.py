"""Small explicitly quantized ONNX graphs, written node by node so that each can break one rule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeq.calibration.types import Array

ZERO = np.int8(0)


@dataclass
class QDQ:
    """Builds one graph; every method returns the name of the value that it made.

    ``dtype`` is that of everything that is not quantized.
    """

    dtype: Any = np.float32
    opset: int = 21
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    seed: int = 0

    def input(self, name: str, *shape: int | str, dtype: Any = None) -> str:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype or self.dtype))
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def constant(self, name: str, values: Any) -> str:
        """An initializer; raw 4-bit and 8-bit float arrays come as their ml_dtypes."""
        self.initializers.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def floats(self, name: str, *shape: int) -> str:
        values = np.random.default_rng(self.seed).normal(size=shape) * 0.1
        return self.constant(name, values.astype(self.dtype))

    def op(self, kind: str, inputs: list[str], name: str, domain: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name, domain=domain, **attributes))
        return name

    def quantize(self, x: str, tag: str, scale: Any = 0.02, zero: Any = ZERO, **attributes: Any) -> str:
        """A QuantizeLinear alone."""
        self._scale(tag, scale)
        return self.op("QuantizeLinear", [x, f"{tag}_s", self._zero(tag, zero)], f"{tag}_q", **attributes)

    def dequantize(self, x: str, tag: str, scale: Any = None, zero: Any = None, **attributes: Any) -> str:
        """A DequantizeLinear; without a scale of its own it shares those of the QuantizeLinear ``tag``."""
        if scale is None:
            return self.op("DequantizeLinear", [x, f"{tag}_s", f"{tag}_z"], f"{tag}_dq", **attributes)
        self._scale(f"{tag}_d", scale)
        zero = np.int8(0) if zero is None else zero
        return self.op(
            "DequantizeLinear", [x, f"{tag}_d_s", self._zero(f"{tag}_d", zero)], f"{tag}_dq", **attributes
        )

    def qdq(self, x: str, tag: str, scale: Any = 0.02, zero: Any = ZERO, **attributes: Any) -> str:
        """Both, one after the other."""
        return self.dequantize(self.quantize(x, tag, scale, zero, **attributes), tag, **attributes)

    def weight(
        self, tag: str, shape: tuple[int, ...], axis: int | None = 0, dtype: Any = np.int8, zero: int = 0,
        scale: Any = None, block: int = 0, zero_point: bool = True,
    ) -> str:  # fmt: skip
        """Stored codes and their DequantizeLinear; ``axis`` None is one scale, ``block`` scales per block."""
        kind = np.dtype(dtype)
        low, high = (-7, 8) if "4" in kind.name else (1, 100) if "u" in kind.name else (-100, 100)
        low = max(low, 0) if "u" in kind.name else low
        codes = np.random.default_rng(self.seed).integers(low, high, shape)
        self.constant(f"{tag}_c", codes.astype(kind))
        scales = self._weight_scale(shape, axis, block, scale)
        self.constant(f"{tag}_s", scales)
        names = [f"{tag}_c", f"{tag}_s"]
        if zero_point:
            names.append(self.constant(f"{tag}_z", np.full(scales.shape, zero).astype(kind)))
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        if block:
            attributes["block_size"] = block
        return self.op("DequantizeLinear", names, f"{tag}_dq", **attributes)

    def _weight_scale(self, shape: tuple[int, ...], axis: int | None, block: int, scale: Any) -> Array:
        if axis is None:
            size: tuple[int, ...] = ()
        elif block:
            size = tuple(-(-n // block) if i == axis % len(shape) else n for i, n in enumerate(shape))
        else:
            size = (shape[axis],)
        return np.full(size, 0.01 if scale is None else scale).astype(self.dtype)

    def _scale(self, tag: str, scale: Any) -> None:
        kind = scale.dtype if isinstance(scale, np.ndarray | np.generic) else self.dtype
        self.constant(f"{tag}_s", np.asarray(scale, kind))

    def _zero(self, tag: str, zero: Any) -> str:
        return self.constant(f"{tag}_z", zero) if zero is not None else ""

    def model(self, *outputs: str, dtype: Any = None) -> onnx.ModelProto:
        """The model, its outputs of the first input's rank; not checked: some break rules of ONNX as well."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype or self.dtype))
        dims = [f"d{i}" for i in range(len(self.inputs[0].type.tensor_type.shape.dim))]
        infos = [helper.make_tensor_value_info(name, kind, dims) for name in outputs]
        graph = helper.make_graph(self.nodes, "g", self.inputs, infos, self.initializers)
        imports = [helper.make_opsetid("", self.opset)]
        imports += [helper.make_opsetid(d, 1) for d in sorted({n.domain for n in self.nodes} - {""})]
        return helper.make_model(graph, opset_imports=imports, ir_version=10)


def conv(g: QDQ, x: str, w: str, name: str = "conv", **attributes: Any) -> str:
    """A 3x3 convolution that keeps the size."""
    return g.op("Conv", [x, w], name, kernel_shape=[3, 3], pads=[1, 1, 1, 1], **attributes)


INT4, UINT4 = ml_dtypes.int4, ml_dtypes.uint4
E4M3, E5M2 = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2
