"""What one layer table proves about one node. INT8 is never concluded from the model alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from edgeq.compiler.plan import NodePlan
from edgeq.targets.tensorrt.layers.quantized import (
    computed_inputs,
    is_constant,
    rounded_by,
    rounds_outputs,
    stored_weights,
)
from edgeq.targets.tensorrt.layers.table import Layer, LayerTable, LayerTensor

REMOVED = "removed"
UNPROVEN = "unproven"
STORED_INT8 = "int8-weight"

_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum"})
# Kinds of layers that multiply matrices. Only the first run in INT8; a runtime fusion expands its weights.
_INTEGER_KINDS = frozenset({"correlation", "gemm", "deconv"})
_PRODUCT_KINDS = _INTEGER_KINDS | {"runtime_fusion"}
_ATTENTION = "_gemm_mha"
_FLOATS: Mapping[str, str] = {"Float": "fp32", "Half": "fp16", "BFloat16": "bf16"}
_NARROW: Mapping[str, str] = {"Int8": "int8", "FP8": "fp8"}
_STORED: Mapping[ir.DataType, str] = {
    ir.DataType.INT8: "Int8",
    ir.DataType.INT4: "Int4",
    ir.DataType.FLOAT8E4M3FN: "FP8",
}
_WIDTHS = ("fp16", "bf16", "fp32")
_TYPES: Mapping[ir.DataType, str] = {
    ir.DataType.FLOAT: "fp32",
    ir.DataType.FLOAT16: "fp16",
    ir.DataType.BFLOAT16: "bf16",
}
_EXPANDED = "its {0} weights are expanded by a kernel of their own on every run"


@dataclass(frozen=True)
class Found:
    """A node's precision on one compute capability, the kernel that shows it, and what else to know."""

    actual: str
    kernel: str = ""
    reason: str = ""


class Evidence:
    """The layers of one table by the nodes in them."""

    def __init__(self, table: LayerTable) -> None:
        self._layers: dict[str, list[Layer]] = {}
        for layer in table.layers:
            for name in layer.nodes:
                self._layers.setdefault(name, []).append(layer)

    def of(self, plan: NodePlan, node: ir.Node) -> Found:
        """What the table shows about ``node``."""
        layers = self._layers.get(plan.name, [])
        products = _main_layers(node, layers) if node.op_type in _PRODUCTS else []
        if products:
            return min((self._product(node, layer) for layer in products), key=_rank)
        return self._stored(node, layers) or self._other(plan, node, layers)

    def _product(self, node: ir.Node, layer: Layer) -> Found:
        narrow = _attention_type(node, layer) if _is_attention(layer) else _operand_type(layer)
        if narrow is not None:
            return Found(narrow, _kernel(layer))
        reads = f"the kernel multiplies {_arithmetic(node, layer)}"
        return self._stored(node, [layer]) or Found(_arithmetic(node, layer), _kernel(layer), reads)

    def _stored(self, node: ir.Node, layers: list[Layer]) -> Found | None:
        """The form of constant weights, if the table has the integers of all of them."""
        weights = list(stored_weights(node))
        if not weights or any(rounded_by(value) is not None for value in computed_inputs(node)):
            return None
        own = layers[-1] if layers else None
        forms, apart = set(), False
        for weight in weights:
            dtype = _STORED.get(weight.dtype, "")
            holders = [h for h in self._layers.get(weight.node, []) if _holds(h, dtype, weight.count)]
            if not holders:
                return None
            own = own or holders[0]
            forms.add(dtype)
            apart = apart or not any(holder in layers or holder is own for holder in holders)
        if own is None or len(forms) != 1:
            return None
        return _stored_found(node, own, forms.pop(), apart=apart)

    def _other(self, plan: NodePlan, node: ir.Node, layers: list[Layer]) -> Found:
        if plan.precision == "other":
            return Found("other" if layers else REMOVED, _kernels(layers))
        if not layers:
            return self._vanished(plan, node)
        if node.op_type not in _PRODUCTS:
            for dtype, precision in _NARROW.items():
                if all(self._carries(node, layer, dtype) for layer in layers):
                    return Found(precision, _kernels(layers))
        float_type = max((_arithmetic(node, layer) for layer in layers), key=_float_rank)
        return Found(float_type, _kernels(layers), _why_float(plan))

    def _carries(self, node: ir.Node, layer: Layer, dtype: str) -> bool:
        """Whether the values that ``layer`` reads and writes for ``node`` are ``dtype``.

        Either the whole kernel has no others, or the roundings around the node are part of the kernel and
        it has tensors of that type on that side.
        """
        if layer.inputs and _all_are((*layer.inputs, *layer.outputs), dtype):
            return True
        before = [rounded_by(value) for value in computed_inputs(node)]
        after = rounds_outputs(node)
        reads = before and all(d is not None and self._enters(d, layer, dtype) for d in before)
        writes = after and all(q.name in layer.nodes for q in after) and _any_is(layer.outputs, dtype)
        return bool(writes if after else reads) and (bool(reads) or None in before or not before)

    def _enters(self, dequantize: ir.Node, layer: Layer, dtype: str) -> bool:
        """Whether the rounded value comes into ``layer`` as ``dtype``, or is rounded inside of it."""
        codes = dequantize.inputs[0]
        quantize = None if codes is None else codes.producer()
        if quantize is not None and quantize.name in layer.nodes:
            return True
        return dequantize.name in layer.nodes and _any_is(layer.inputs, dtype)

    def _vanished(self, plan: NodePlan, node: ir.Node) -> Found:
        if all(is_constant(value) for value in node.inputs if value is not None) and node.inputs:
            return Found(REMOVED, reason="folded into constants: it reads nothing else")
        if plan.precision in ("int8", "fp8", "int4"):
            return Found(UNPROVEN, reason="no layer of the engine names it, so nothing proves its precision")
        return Found(REMOVED, reason="no layer of the engine names it")


def _main_layers(node: ir.Node, layers: Iterable[Layer]) -> list[Layer]:
    """The layers that do the multiplications of ``node``: those named after it where there are any."""
    main = [layer for layer in layers if layer.kind in _PRODUCT_KINDS or _is_attention(layer)]
    named = [layer for layer in main if (node.name or "") in layer.name]
    return named or main


def _is_attention(layer: Layer) -> bool:
    return layer.name.startswith(_ATTENTION)


def _operand_type(layer: Layer) -> str | None:
    """The narrow type of both operands of a product, None if one of them is wider."""
    if layer.kind not in _INTEGER_KINDS or not layer.inputs:
        return None
    dtype = layer.inputs[0].dtype
    if dtype not in _NARROW:
        return None
    constant = _any_is(layer.constants, dtype)
    return _NARROW[dtype] if constant or _all_are(layer.inputs[1:2], dtype) else None


def _attention_type(node: ir.Node, layer: Layer) -> str | None:
    """The narrow type of a product inside fused attention: both operands rounded, inside or before it."""
    operands = [rounded_by(value) for value in computed_inputs(node)]
    if len(operands) != 2 or any(d is None or d.name not in layer.nodes for d in operands):
        return None
    dtypes = {tensor.dtype for tensor in layer.inputs}
    dtype = dtypes.pop()
    return _NARROW.get(dtype) if not dtypes else None


def _holds(layer: Layer, dtype: str, count: int) -> bool:
    return any(tensor.dtype == dtype and prod(tensor.shape) >= count for tensor in layer.constants)


def _stored_found(node: ir.Node, layer: Layer, dtype: str, *, apart: bool) -> Found:
    reason = _EXPANDED.format(dtype.upper()) if apart else "float arithmetic, the kernel expands its weights"
    if dtype == "Int8":
        return Found(STORED_INT8, _kernel(layer), reason)
    if apart or dtype != "Int4":
        return Found(_arithmetic(node, layer), _kernel(layer), reason)
    return Found("int4", _kernel(layer), reason)


def _arithmetic(node: ir.Node, layer: Layer) -> str:
    """The float type that ``layer`` computes ``node`` in: a strongly typed network keeps the model's."""
    declared = [_TYPES[v.dtype] for v in node.outputs if v.dtype is not None and v.dtype in _TYPES]
    tensors = (*layer.inputs, *layer.outputs)
    seen = {_FLOATS[tensor.dtype] for tensor in tensors if tensor.dtype in _FLOATS}
    if declared and (not seen or declared[0] in seen):
        return declared[0]
    return max(seen, key=_float_rank, default="other")


def _why_float(plan: NodePlan) -> str:
    return "the kernel reads or writes floats for it" if plan.precision in ("int8", "fp8") else ""


def _kernel(layer: Layer) -> str:
    return f"{layer.kind} {layer.name}"


def _kernels(layers: Iterable[Layer]) -> str:
    return ", ".join(_kernel(layer) for layer in layers)


def _all_are(tensors: Iterable[LayerTensor], dtype: str) -> bool:
    found = [tensor.dtype == dtype for tensor in tensors]
    return bool(found) and all(found)


def _any_is(tensors: Iterable[LayerTensor], dtype: str) -> bool:
    return any(tensor.dtype == dtype for tensor in tensors)


def _float_rank(precision: str) -> int:
    return _WIDTHS.index(precision) if precision in _WIDTHS else -1


def _rank(found: Found) -> int:
    return -rank(found.actual)


# Best first: a node counts as what it is at its worst.
_ORDER = ("int4", "int8", "fp8", STORED_INT8, "other", REMOVED, "fp16", "bf16", "fp32", UNPROVEN)


def rank(actual: str) -> int:
    """How far ``actual`` is from a quantized kernel."""
    return _ORDER.index(actual)
