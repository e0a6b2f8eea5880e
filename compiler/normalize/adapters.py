"""What changed in each operator between opset 7 and 21, as in-place edits of a node.

``ADAPTERS`` maps an operator to (opset of the change, adapter) in rising order; all whose opset is above the
model's are applied one after the other. Source: the "Versions" of each operator in onnx/docs/Changelog.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from edgeq.compiler.normalize.editing import (
    add_constant,
    get_input,
    get_int,
    get_string,
    insert_before,
    replace_value,
    set_input,
)
from edgeq.errors import ModelError

Adapter = Callable[[ir.Model, ir.Node], None]

_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSumSquare",
)  # fmt: skip


def _refuse(node: ir.Node, why: str) -> ModelError:
    return ModelError(
        f"Node {node.name!r} ({node.op_type}) cannot be brought to a newer opset: {why}.",
        fix="Export the model again with opset 21.",
    )


def _take(node: ir.Node, name: str) -> ir.Attr | None:
    return node.attributes.pop(name, None)


def _ints_to_input(name: str, index: int) -> Adapter:
    """An attribute with integers becomes an int64 input."""

    def adapt(model: ir.Model, node: ir.Node) -> None:
        attribute = _take(node, name)
        if attribute is not None:
            set_input(node, index, _int64(model, node, name, attribute.as_ints()))

    return adapt


def _int64(model: ir.Model, node: ir.Node, name: str, content: Sequence[int] | int) -> ir.Value:
    return add_constant(model, np.array(content, np.int64), f"{node.name}/{name}")


def _like_input(model: ir.Model, node: ir.Node, name: str, number: float) -> ir.Value:
    """A scalar of the type of the node's first input."""
    first = node.inputs[0]
    dtype = None if first is None else first.dtype
    if dtype is None:
        raise _refuse(node, "the type of its input is not known")
    return add_constant(model, np.array(number, dtype.numpy()), f"{node.name}/{name}")


def _clip_11(model: ir.Model, node: ir.Node) -> None:
    for index, name in ((1, "min"), (2, "max")):
        attribute = _take(node, name)
        if attribute is not None:
            set_input(node, index, _like_input(model, node, name, attribute.as_float()))


def _pad_11(model: ir.Model, node: ir.Node) -> None:
    pads, value = _take(node, "pads"), _take(node, "value")
    if pads is None:
        raise _refuse(node, "it has no pads")
    set_input(node, 1, _int64(model, node, "pads", pads.as_ints()))
    if value is not None and value.as_float() != 0:
        set_input(node, 2, _like_input(model, node, "value", value.as_float()))


def _slice_10(model: ir.Model, node: ir.Node) -> None:
    for index, name in ((1, "starts"), (2, "ends"), (3, "axes")):
        attribute = _take(node, name)
        if attribute is not None:
            set_input(node, index, _int64(model, node, name, attribute.as_ints()))


def _topk_10(model: ir.Model, node: ir.Node) -> None:
    k = _take(node, "k")
    if k is None:
        raise _refuse(node, "it has no k")
    set_input(node, 1, _int64(model, node, "k", [k.as_int()]))


def _dropout_12(model: ir.Model, node: ir.Node) -> None:
    """Dropout-7 and -10 only infer. Their mask has another type in each opset and is not kept."""
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        raise _refuse(node, "its mask output is used")
    _take(node, "ratio")
    node.resize_outputs(1)
    node.op_type = "Identity"


def _batch_normalization_9(model: ir.Model, node: ir.Node) -> None:
    spatial = _take(node, "spatial")
    if spatial is not None and spatial.as_int() == 0:
        raise _refuse(node, "spatial=0 (statistics per element) does not exist any more")


def _batch_normalization_14(model: ir.Model, node: ir.Node) -> None:
    """Before 14 the outputs told whether it trains: five when training, one when not."""
    if any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        raise _refuse(node, "it is in training mode")
    node.resize_outputs(1)


def _upsample_9(model: ir.Model, node: ir.Node) -> None:
    scales = _take(node, "scales")
    if scales is None:
        raise _refuse(node, "it has no scales")
    set_input(node, 1, add_constant(model, np.array(scales.as_floats(), np.float32), f"{node.name}/scales"))


def _resize_11(model: ir.Model, node: ir.Node) -> None:
    """Resize-10 (and Upsample) scale coordinates asymmetrically and round them down."""
    node.op_type = "Resize"
    set_input(node, 2, node.inputs[1])
    set_input(node, 1, None)
    mode = get_string(node, "mode", "nearest")
    node.attributes["coordinate_transformation_mode"] = ir.AttrString(
        "coordinate_transformation_mode", "asymmetric"
    )
    node.attributes["mode"] = ir.AttrString("mode", "linear" if mode in ("linear", "bilinear") else mode)
    if mode == "nearest":
        node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "floor")


def _resize_13(model: ir.Model, node: ir.Node) -> None:
    """Since 13 an unused roi, scales or sizes is left out; before it was an empty tensor."""
    for index, value in enumerate(node.inputs[1:], start=1):
        if value is not None and value.shape is not None and tuple(value.shape) == (0,):
            node.replace_input_with(index, None)


def _scatter_11(model: ir.Model, node: ir.Node) -> None:
    node.op_type = "ScatterElements"


def _softmax_13(model: ir.Model, node: ir.Node) -> None:
    """Softmax-1 and -11 flatten to 2-D at ``axis`` (default 1) and normalize over all later dimensions."""
    axis = get_int(node, "axis", 1)
    source = node.inputs[0]
    assert source is not None
    shape = source.shape
    axis = axis + len(shape) if axis < 0 and shape is not None else axis
    node.attributes["axis"] = ir.AttrInt64("axis", -1)
    if shape is not None and (axis == len(shape) - 1 or len(shape) == 0):
        return
    if shape is not None and axis < len(shape) and all(d == 1 for d in shape[axis + 1 :]):
        node.attributes["axis"] = ir.AttrInt64("axis", axis)
        return
    node.replace_input_with(0, insert_before(node, "Flatten", [source], axis=axis))
    _restore_shape(node, source)


def _restore_shape(node: ir.Node, like: ir.Value) -> None:
    """Reshape the node's output to the shape of ``like``."""
    output, graph = node.outputs[0], node.graph
    assert graph is not None
    shape = ir.node("Shape", [like])
    reshape = ir.node("Reshape", [output, shape.outputs[0]])
    graph.insert_after(node, [shape, reshape])
    restored = reshape.outputs[0]
    restored.type, restored.shape = output.type, output.shape
    replace_value(output, restored)
    reshape.replace_input_with(0, output)


def _split_18(model: ir.Model, node: ir.Node) -> None:
    if get_input(node, 1) is None:
        node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))


def _roi_align_16(model: ir.Model, node: ir.Node) -> None:
    mode = ir.AttrString("coordinate_transformation_mode", "output_half_pixel")
    node.attributes["coordinate_transformation_mode"] = mode


def _scan_9(model: ir.Model, node: ir.Node) -> None:
    raise _refuse(node, "Scan had a batch dimension in opset 8")


def _dft_20(model: ir.Model, node: ir.Node) -> None:
    axis = _take(node, "axis")
    set_input(node, 2, _int64(model, node, "axis", 1 if axis is None else axis.as_int()))


def _grid_sample_20(model: ir.Model, node: ir.Node) -> None:
    mode = get_string(node, "mode", "bilinear")
    renamed = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    node.attributes["mode"] = ir.AttrString("mode", renamed)


def _group_normalization_21(model: ir.Model, node: ir.Node) -> None:
    """Scale and bias were per group; now they are per channel."""
    source, groups = node.inputs[0], get_int(node, "num_groups", 0)
    channels = None if source is None or source.shape is None else source.shape[1]
    if not isinstance(channels, int):
        raise _refuse(node, "the number of its channels is not known")
    for index in (1, 2):
        value = node.inputs[index]
        assert value is not None
        column = insert_before(node, "Unsqueeze", [value, _int64(model, node, "axes", [1])])
        repeat = _int64(model, node, "repeats", [1, channels // groups])
        tiled = insert_before(node, "Tile", [column, repeat])
        flat = _int64(model, node, "shape", [channels])
        node.replace_input_with(index, insert_before(node, "Reshape", [tiled, flat]))


ADAPTERS: Mapping[str, Sequence[tuple[int, Adapter]]] = {
    "BatchNormalization": ((9, _batch_normalization_9), (14, _batch_normalization_14)),
    "Clip": ((11, _clip_11),),
    "DFT": ((20, _dft_20),),
    "Dropout": ((12, _dropout_12),),
    "GridSample": ((20, _grid_sample_20),),
    "GroupNormalization": ((21, _group_normalization_21),),
    "Hardmax": ((13, _softmax_13),),
    "LogSoftmax": ((13, _softmax_13),),
    "Pad": ((11, _pad_11),),
    "ReduceSum": ((13, _ints_to_input("axes", 1)),),
    "Resize": ((11, _resize_11), (13, _resize_13)),
    "RoiAlign": ((16, _roi_align_16),),
    "Scan": ((9, _scan_9),),
    "Scatter": ((11, _scatter_11),),
    "Slice": ((10, _slice_10),),
    "Softmax": ((13, _softmax_13),),
    "Split": ((13, _ints_to_input("split", 1)), (18, _split_18)),
    "Squeeze": ((13, _ints_to_input("axes", 1)),),
    "TopK": ((10, _topk_10),),
    "Unsqueeze": ((13, _ints_to_input("axes", 1)),),
    "Upsample": ((9, _upsample_9), (11, _resize_11)),
    **{name: ((18, _ints_to_input("axes", 1)),) for name in _REDUCTIONS},
}
