"""Padding in one place: in the ``pads`` of the convolution or pooling, as numbers."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from edgeq.compiler.normalize.editing import (
    get_input,
    get_int,
    get_ints,
    get_string,
    integers,
    is_op,
    nodes,
    producer,
    remove_if_unused,
    scalar,
)

_PADDED = ("Conv", "AveragePool", "MaxPool")


class ExplicitPadsPass(ir.passes.InPlacePass):
    """``auto_pad`` becomes ``pads`` where it is known: VALID always, SAME with stride 1 or known sizes.

    Dilated pools keep SAME: the ONNX formula and ONNX Runtime differ there.

    Formula: ONNX operator Conv, attribute auto_pad. Requires: inferred shapes.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        count = sum(_make_explicit(node) for node in nodes(model) if is_op(node, *_PADDED))
        return ir.passes.PassResult(model, bool(count))


def _make_explicit(node: ir.Node) -> bool:
    mode = get_string(node, "auto_pad", "NOTSET")
    kernel = _kernel(node)
    if "auto_pad" not in node.attributes or kernel is None:
        return False
    if mode == "NOTSET":
        node.attributes.pop("auto_pad")
        return True
    if mode != "VALID" and node.op_type != "Conv" and set(get_ints(node, "dilations") or [1]) != {1}:
        return False  # ONNX Runtime pools as if the kernel were not dilated
    pads = [0] * (2 * len(kernel)) if mode == "VALID" else _same_pads(node, kernel, mode)
    if pads is None:
        return False
    node.attributes.pop("auto_pad")
    node.attributes["pads"] = ir.AttrInt64s("pads", pads)
    return True


def _kernel(node: ir.Node) -> list[int] | None:
    """The extent of the kernel per spatial axis, dilation included."""
    kernel = get_ints(node, "kernel_shape")
    if kernel is None and node.op_type == "Conv":
        weight = node.inputs[1]
        shape = None if weight is None else weight.shape
        kernel = None if shape is None else [d for d in shape[2:] if isinstance(d, int)]
    if kernel is None:
        return None
    dilations = get_ints(node, "dilations") or [1] * len(kernel)
    return [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]


def _same_pads(node: ir.Node, kernel: list[int], mode: str) -> list[int] | None:
    strides = get_ints(node, "strides") or [1] * len(kernel)
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    sizes = [None] * len(kernel) if shape is None else list(shape[2:])
    before, after = [], []
    for size, extent, stride in zip(sizes, kernel, strides, strict=True):
        if stride == 1:
            total = extent - 1
        elif isinstance(size, int):
            total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        else:
            return None
        small, large = total // 2, total - total // 2
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    return before + after


class FoldPadPass(ir.passes.InPlacePass):
    """A Pad with zeros goes into the ``pads`` of the Conv or AveragePool that reads it.

    An AveragePool must count padding then, and may only have had padding that it counted. MaxPool pads with
    minus infinity and is left alone. Requires: canonical constants, inferred shapes, explicit pads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.applied: Counter[str] = Counter()

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        before = self.applied.total()
        for node in nodes(model):
            pad = producer(node.inputs[0], "Pad") if is_op(node, "Conv", "AveragePool") else None
            if pad is not None and _fold(node, pad):
                self.applied[f"fold Pad into {node.op_type}"] += 1
        return ir.passes.PassResult(model, self.applied.total() > before)


def _fold(node: ir.Node, pad: ir.Node) -> bool:
    spatial = _spatial_pads(pad)
    if spatial is None or "auto_pad" in node.attributes:
        return False
    own = get_ints(node, "pads") or [0] * len(spatial)
    total = [a + b for a, b in zip(own, spatial, strict=True)]
    if node.op_type == "AveragePool":
        if not _counts_padding(node, own, total):
            return False
        node.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
    node.attributes["pads"] = ir.AttrInt64s("pads", total)
    node.replace_input_with(0, pad.inputs[0])
    remove_if_unused(pad)
    return True


def _counts_padding(node: ir.Node, own: list[int], total: list[int]) -> bool:
    """Whether an AveragePool with these pads in all would count those of the Pad and no others."""
    counted = get_int(node, "count_include_pad", 0) or not any(own)
    kernel = _kernel(node) or []
    # ONNX Runtime refuses pads as large as the kernel; a rounded-up last window may lie in the padding.
    fits = all(p < k for p, k in zip(total, kernel * 2, strict=True))
    return bool(counted) and fits and not get_int(node, "ceil_mode", 0)


def _spatial_pads(pad: ir.Node) -> list[int] | None:
    """Zeros added to the spatial axes alone: begins, then ends; None for any other Pad."""
    value, source, pads = get_input(pad, 2), pad.inputs[0], integers(pad.inputs[1])
    if get_string(pad, "mode", "constant") != "constant" or (value is not None and scalar(value) != 0):
        return None
    if pads is None or source is None or source.shape is None:
        return None
    rank = len(source.shape)
    axes = list(range(rank)) if get_input(pad, 3) is None else integers(get_input(pad, 3))
    if axes is None:
        return None
    begins, ends = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        begins[axis % rank], ends[axis % rank] = pads[i], pads[i + len(axes)]
    if any(begins[:2] + ends[:2]) or min(begins + ends) < 0:
        return None
    return begins[2:] + ends[2:]
