"""What one layer table proves about one node. INT8 is never concluded from the model alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from edgeq.compiler.plan import NodePlan
from edgeq.targets.base import REMOVED, STORED_INT8, UNPROVEN
from edgeq.targets.capabilities import QUANTIZED
from edgeq.targets.tensorrt.layers.quantized import MOVES, QuantizedGraph, Rounded, StoredWeight
from edgeq.targets.tensorrt.layers.table import Layer, LayerTensor

# Matrix products and convolutions: what holds the arithmetic.
PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum"})
# Kinds of layers that multiply matrices, of TensorRT for RTX and (with Cask, MatrixMultiply …) of TensorRT.
_INTEGER_KINDS = re.compile(
    r"correlation|gemm|deconv|.*[Cc]onv(?:olution|ActPool|$).*|.*MatrixMultiply.*|.*Gemm.*"
)
# Fusions expand narrow operands before they multiply, unless the kernel's name says how it adds them up.
_FUSION_KINDS = ("runtime_fusion", "fusion")
_INTEGER_SUMS: Mapping[str, str] = {"Int8": "i8i32", "FP8": "e4m3"}
_GENERATED = "kgen"
_ATTENTION = "_gemm_mha"
_NARROW: Mapping[str, str] = {"Int8": "int8", "FP8": "fp8", "FP4E2M1": "fp4"}
_FLOATS: Mapping[str, str] = {"Half": "fp16", "BFloat16": "bf16", "Float": "fp32"}
_WIDTHS = ("other", *_FLOATS.values())
_TYPES: Mapping[ir.DataType, str] = {
    ir.DataType.FLOAT: "fp32",
    ir.DataType.FLOAT16: "fp16",
    ir.DataType.BFLOAT16: "bf16",
}
_CODES: Mapping[ir.DataType, str] = {
    ir.DataType.INT8: "Int8",
    ir.DataType.INT4: "Int4",
    ir.DataType.FLOAT8E4M3FN: "FP8",
}
# What weights of a type make of a node whose arithmetic is float.
_STORED: Mapping[str, str] = {"Int8": STORED_INT8, "Int4": "int4"}


@dataclass(frozen=True)
class Found:
    """A node's precision on one compute capability, the kernel that shows it, and what else to know."""

    actual: str
    kernel: str = ""
    reason: str = ""


class Evidence:
    """What the layers of one table show about the nodes of ``graph``."""

    def __init__(self, layers: Iterable[Layer], graph: QuantizedGraph, *, static: bool) -> None:
        """``static``: the plan rounds activations, so INT8 weights alone are less than what is planned."""
        self._graph = graph
        self._static = static
        self._layers: dict[str, list[Layer]] = {}
        for layer in layers:
            for name in layer.nodes:
                self._layers.setdefault(name, []).append(layer)

    def of(self, plan: NodePlan, node: ir.Node) -> Found:
        """The precision of ``node``."""
        layers = self._layers.get(plan.name, [])
        if plan.precision == "other":
            return Found("other" if layers else REMOVED, _kernels(layers))
        products = _product_layers(node, layers)
        found = [self._product(node, layer) for layer in products]
        if found:
            return max(found, key=lambda f: rank(f.actual))
        return self._stored(node, layers) or self._elementwise(plan, node, layers)

    def _product(self, node: ir.Node, layer: Layer) -> Found:
        attention = layer.name.startswith(_ATTENTION)
        narrow = self._attention_type(node, layer) if attention else _operand_type(layer)
        if narrow is not None:
            return Found(narrow, _kernel(layer))
        return self._stored(node, [layer]) or self._wide(node, [layer])

    def _attention_type(self, node: ir.Node, layer: Layer) -> str | None:
        """The narrow type of a product in fused attention: both operands rounded, in it or before it.

        The table does not tell which input is which operand (a mask is one as well), so there must be a
        narrow one for every rounded operand of all products in the kernel.
        """
        if len(self._rounded_operands(node, layer)) != 2:
            return None
        products = [self._graph.nodes[name] for name in layer.nodes if name in self._graph.nodes]
        operands = {o for p in products if p.op_type in PRODUCTS for o in self._rounded_operands(p, layer)}
        outside = [operand for operand in operands if operand.quantize not in layer.nodes]
        for dtype, precision in _NARROW.items():
            if outside and sum(tensor.dtype == dtype for tensor in layer.inputs) >= len(outside):
                return precision
        return None

    def _rounded_operands(self, node: ir.Node, layer: Layer) -> list[Rounded]:
        operands = [self._graph.rounded(value) for value in self._graph.computed(node)]
        return [o for o in operands if o is not None and o.dequantize in layer.nodes]

    def _stored(self, node: ir.Node, layers: list[Layer]) -> Found | None:
        """The form of weights that are integers in the file, where the engine holds these integers too.

        A layer that expands them and passes floats on costs time on every run: INT4 is then not counted.
        """
        weights = list(self._graph.stored_weights(node)) if layers else []
        if not weights or self._graph.rounds_any(node) or (self._static and node.op_type in PRODUCTS):
            return None
        holders = [self._holders(weight) or self._merged(node, weight, layers) for weight in weights]
        forms = {_CODES.get(weight.dtype, "") for weight in weights}
        if not all(holders) or len(forms) != 1:
            return None
        form, wide = forms.pop(), self._float_type(node, layers)
        if all(any(layer in layers for layer in found) for found in holders):
            return Found(_STORED.get(form, wide), _kernels(layers), "in float arithmetic")
        why = f"its {form.upper()} weights are expanded by a layer of their own on every run"
        return Found(STORED_INT8 if form == "Int8" else wide, _kernels(layers), why)

    def _holders(self, weight: StoredWeight) -> list[Layer]:
        """The layers that have these weights as a constant of their integer type."""
        dtype = _CODES.get(weight.dtype)
        return [
            layer
            for layer in self._layers.get(weight.node, [])
            if any(t.dtype == dtype and prod(t.shape) >= weight.count for t in layer.constants)
        ]

    def _merged(self, node: ir.Node, weight: StoredWeight, layers: list[Layer]) -> list[Layer]:
        """The layers that have these weights side by side with those of other products of the same value.

        The compiler names such a constant after one of them only; it must have room for all.
        """
        dtype, found = _CODES.get(weight.dtype), []
        for layer in layers:
            others = [self._graph.nodes[name] for name in layer.nodes if name in self._graph.nodes]
            beside = [
                other
                for other in others
                if other.op_type == node.op_type and other.inputs[0] is node.inputs[0]
            ]
            count = sum(stored.count for other in beside for stored in self._graph.stored_weights(other))
            if len(beside) > 1 and any(t.dtype == dtype and prod(t.shape) >= count for t in layer.constants):
                found.append(layer)
        return found

    def _elementwise(self, plan: NodePlan, node: ir.Node, layers: list[Layer]) -> Found:
        if not layers:
            return self._vanished(plan, node)
        # What a float op computes is float even where its kernel reads and writes integers.
        if node.op_type not in PRODUCTS and (plan.precision in QUANTIZED or node.op_type in MOVES):
            for dtype, precision in _NARROW.items():
                if all(self._moves(node, layer, dtype) for layer in layers):
                    return Found(precision, _kernels(layers))
        return self._wide(node, layers)

    def _moves(self, node: ir.Node, layer: Layer, dtype: str) -> bool:
        """Whether the values that ``layer`` reads and writes in memory for ``node`` are ``dtype``.

        Values that are rounded before the node come in as ``dtype``, or are rounded in the layer. Of values
        that are rounded after it the rounding is in the layer, which writes ``dtype``.
        """
        reads, writes = _has(layer.inputs, dtype), _has(layer.outputs, dtype)
        if _all_are((*layer.inputs, *layer.outputs), dtype) and reads:
            return True
        sources = [self._graph.rounded(value) for value in self._graph.computed(node)]
        after = self._graph.roundings_after(node)
        if not _all_are(layer.outputs, dtype):
            writes = writes and bool(after) and all(name in layer.nodes for name in after)
        if not sources or None in sources:
            return bool(after) and writes
        enters = all(source is not None and self._enters(source, layer, dtype) for source in sources)
        return enters and (writes if after or node.op_type in MOVES else reads)

    def _enters(self, source: Rounded, layer: Layer, dtype: str) -> bool:
        """Whether a rounded value comes into ``layer`` as ``dtype``, or is rounded inside of it."""
        if source.quantize in layer.nodes:
            return True
        # A layer with the DequantizeLinear but none of its readers passes floats on.
        expanded = [other for other in self._layers.get(source.dequantize, []) if not _reads(other, source)]
        return not expanded and _has(layer.inputs, dtype)

    def _wide(self, node: ir.Node, layers: list[Layer]) -> Found:
        """Float arithmetic, although the model may say otherwise."""
        actual = self._float_type(node, layers)
        why = f"the compiler computes it in {actual}" if self._quantized(node) else ""
        return Found(actual, _kernels(layers), why)

    def _quantized(self, node: ir.Node) -> bool:
        return self._graph.rounds_any(node) or any(True for _ in self._graph.stored_weights(node))

    def _float_type(self, node: ir.Node, layers: list[Layer]) -> str:
        """The float type of the arithmetic: the model's where the kernel has it, or converts inside.

        A strongly typed network keeps the model's types, and generated kernels hold conversions of their own.
        """
        declared = [_TYPES[v.dtype] for v in node.outputs if v.dtype is not None and v.dtype in _TYPES]
        tensors = [tensor for layer in layers for tensor in (*layer.inputs, *layer.outputs)]
        seen = {_FLOATS[tensor.dtype] for tensor in tensors if tensor.dtype in _FLOATS}
        generated = all(layer.kind == _GENERATED for layer in layers)
        if declared and (generated or not seen or declared[0] in seen):
            return declared[0]
        return max(seen, key=_WIDTHS.index, default="other")

    def _vanished(self, plan: NodePlan, node: ir.Node) -> Found:
        read = [value for value in node.inputs if value is not None]
        if read and all(self._graph.is_constant(value) for value in read):
            return Found(REMOVED, reason="folded into constants: it reads nothing else")
        if plan.precision in QUANTIZED:
            return Found(UNPROVEN, reason="no layer names it, so nothing proves its precision")
        return Found(REMOVED, reason="no layer names it")


def _product_layers(node: ir.Node, layers: Iterable[Layer]) -> list[Layer]:
    """The layers that do the multiplications of ``node``: those named after it where there are any."""
    if node.op_type not in PRODUCTS:
        return []
    main = [layer for layer in layers if _multiplies(layer) or layer.name.startswith(_ATTENTION)]
    # Products that are computed together are joined by a plus; a suffix makes the names unique.
    named = [layer for layer in main if f"+{node.name}_" in f"+{layer.name}"]
    return named or main


def _multiplies(layer: Layer) -> bool:
    return layer.kind in _FUSION_KINDS or _INTEGER_KINDS.fullmatch(layer.kind) is not None


def _operand_type(layer: Layer) -> str | None:
    """The narrow type of both operands of a product, None if one of them is wider or is widened."""
    if not layer.inputs:
        return None
    dtype = layer.inputs[0].dtype
    if layer.kind in _FUSION_KINDS and _INTEGER_SUMS.get(dtype, "\0") not in layer.tactic:
        return None
    weights = [tensor for tensor in layer.constants if tensor.dtype == dtype] or layer.inputs[1:2]
    return _NARROW.get(dtype) if _all_are(weights, dtype) else None


def _all_are(tensors: Iterable[LayerTensor], dtype: str) -> bool:
    found = [tensor.dtype == dtype for tensor in tensors]
    return bool(found) and all(found)


def _has(tensors: Iterable[LayerTensor], dtype: str) -> bool:
    return any(tensor.dtype == dtype for tensor in tensors)


def _reads(layer: Layer, source: Rounded) -> bool:
    return any(name in source.readers for name in layer.nodes)


def _kernel(layer: Layer) -> str:
    return f"{layer.kind} {layer.name}"


def _kernels(layers: Iterable[Layer]) -> str:
    return ", ".join(_kernel(layer) for layer in layers)


# Best first: a node counts as what it is at its worst.
_ORDER = ("fp4", "int4", "int8", "fp8", STORED_INT8, "other", REMOVED, "fp16", "bf16", "fp32", UNPROVEN)


def rank(actual: str) -> int:
    """How far ``actual`` is from a quantized kernel."""
    return _ORDER.index(actual)
