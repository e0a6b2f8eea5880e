"""INT8 weights that the runtime expands to float when it loads the model.

The file holds int8 codes and float32 scales; Cast and Mul read them back. Both have constant inputs, so
ONNX Runtime folds them at load: the file is four times smaller and every kernel runs at its float speed.
DequantizeLinear instead of Cast and Mul would not be folded: it runs again at every inference (measured:
1.3 to 3 times slower 3x3 and depthwise convolutions). Targets that read the integers of a DequantizeLinear
themselves (``Capabilities.weight_form``) get that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgeq.compiler.plan import QuantSpec
from edgeq.compiler.quantize.rewriter import Rewriter
from edgeq.compiler.quantize.rounding import round_int8, round_int8_pairs
from edgeq.compiler.quantize.walk import Decision
from edgeq.compiler.quantize.weights import (
    NOT_FINITE,
    TOO_FEW,
    Floats,
    Refusal,
    Weight,
    find_weight,
    why_not_constant,
)

# What Cast, Mul, and two initializers cost in a file, besides the numbers themselves.
_NODES_COST = 260


def expand_inputs(
    node: ir.Node, state: Rewriter, inputs: Sequence[tuple[int, tuple[int, ...]]], reason: str
) -> Decision:
    """Store weights of ``node`` in int8: ``inputs`` are (input index, axes that get a scale each)."""
    done, refusal = 0, why_not_constant(None)
    for index, axes in inputs:
        value = node.inputs[index] if index < len(node.inputs) else None
        weight = find_weight(value)
        problem = why_not_constant(value) if weight is None else refuse_weight(weight, axes)
        if weight is None or problem is not None:
            refusal = problem or refusal
            continue
        node.replace_input_with(index, _expanded(state.ties.resolve(weight), axes, state))
        done += 1
    if done:
        return Decision("int8", reason)
    return refused(refusal)


def refused(refusal: Refusal) -> Decision:
    """The node stays in float."""
    return Decision("fp32", refusal.reason, refusal.asked)


def refuse_weight(weight: Weight, axes: Sequence[int]) -> Refusal | None:
    """Why int8 storage of ``weight`` makes no sense, or None."""
    channels = int(np.prod([weight.shape[axis] for axis in axes], dtype=np.int64))
    if 3 * weight.size - 4 * channels <= _NODES_COST:
        return TOO_FEW
    return None if weight.finite() else NOT_FINITE


def int8_codes(
    weight: Weight, axes: Sequence[int], state: Rewriter, *, pairs_along: int | None = None
) -> tuple[ir.Value, ir.Value]:
    """Initializers of int8 codes and float32 scales in the *stored* layout of ``weight``.

    ``axes`` (of the weight as its node sees it) have a scale each; scales keep the rank. With
    ``pairs_along`` the codes are safe against saturation along that axis, which must be the only other one.
    A weight that several nodes read is rounded and stored once.
    """
    stored = tuple(sorted(_stored_axes(weight, axes)))
    key = ("int8", weight.root, stored, pairs_along is not None)
    if key not in state.cache:
        state.cache[key] = _round_stored(weight, stored, state, pairs=pairs_along is not None)
    codes, scales = state.cache[key]
    return codes, scales


def _round_stored(
    weight: Weight, axes: tuple[int, ...], state: Rewriter, *, pairs: bool
) -> tuple[ir.Value, ir.Value]:
    array = Weight(weight.root, weight.tensor).array()
    rest = tuple(axis for axis in range(array.ndim) if axis not in axes)
    rows = channel_rows(array, axes)
    rounded = round_int8_pairs(rows) if pairs else round_int8(rows, state.capabilities.scale_dtype)
    moved = [array.shape[axis] for axis in (*axes, *rest)]
    codes = rounded.codes.astype(np.int8).reshape(moved).transpose(np.argsort((*axes, *rest)))
    scales = rounded.scales.reshape([n if axis in axes else 1 for axis, n in enumerate(array.shape)])
    axis = axes[-1] if axes else None
    state.record(weight.name, QuantSpec("int8", True, axis), scales, np.zeros((), np.int8))
    name = weight.name
    return state.initializer(f"{name}_int8", codes), state.initializer(f"{name}_scale", scales)


def channel_rows(array: Floats, axes: Sequence[int]) -> Floats:
    """``array`` as [channels, elements of one channel]."""
    rest = [axis for axis in range(array.ndim) if axis not in axes]
    channels = int(np.prod([array.shape[axis] for axis in axes], dtype=np.int64))
    return np.ascontiguousarray(array.transpose([*axes, *rest]).reshape(channels, -1))


def _stored_axes(weight: Weight, axes: Sequence[int]) -> list[int]:
    return list(axes) if weight.perm is None else [weight.perm[axis] for axis in axes]


def _expanded(weight: Weight, axes: Sequence[int], state: Rewriter) -> ir.Value:
    """Float weights as their node sees them; nodes that see the same integers share what widens them."""
    key = ("expanded", weight.root, tuple(sorted(_stored_axes(weight, axes))))
    if key not in state.cache:
        codes, scales = int8_codes(weight, axes, state)
        widen = _dequantize if state.capabilities.weight_form == "dequantize" else _cast_and_scale
        made = widen(weight, codes, scales, state)
        state.insert_first(made)
        for node in made:
            node.outputs[0].type, node.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), codes.shape
        state.cache[key] = made[-1].outputs[0]
    return seen_by_node(state.cache[key], weight, state)


def seen_by_node(stored: ir.Value, weight: Weight, state: Rewriter) -> ir.Value:
    """``stored``, which has the layout of the file, as the node of ``weight`` sees it."""
    if weight.perm is None:
        return stored
    key = ("seen", stored, weight.perm)
    if key not in state.cache:
        perm: Sequence[int] = weight.perm
        made = state.node("Transpose", [stored], f"{weight.name}_seen", attributes={"perm": list(perm)})
        made.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        made.outputs[0].shape = ir.Shape(weight.shape)
        producer = stored.producer()
        assert producer is not None
        assert producer.graph is not None
        producer.graph.insert_after(producer, [made])
        state.cache[key] = made.outputs[0]
    value: ir.Value = state.cache[key]
    return value


def _cast_and_scale(weight: Weight, codes: ir.Value, scales: ir.Value, state: Rewriter) -> list[ir.Node]:
    cast = state.node("Cast", [codes], f"{weight.name}_cast", attributes={"to": int(ir.DataType.FLOAT)})
    return [cast, state.node("Mul", [cast.outputs[0], scales], f"{weight.name}_expanded")]


def _dequantize(weight: Weight, codes: ir.Value, scales: ir.Value, state: Rewriter) -> list[ir.Node]:
    """One DequantizeLinear: per tensor, per channel, or one block along the axis that shares scales."""
    tensor = scales.const_value
    assert tensor is not None
    array = tensor.numpy()
    channels = [axis for axis, count in enumerate(array.shape) if count > 1]
    attributes: dict[str, int] = {}
    if len(channels) > 1:
        stored = [int(d) for d in weight.tensor.shape.numpy()]
        shared = max(
            (axis for axis, count in enumerate(array.shape) if count == 1), key=lambda axis: stored[axis]
        )
        attributes = {"axis": shared, "block_size": stored[shared]}
    else:
        attributes = {"axis": channels[0]} if channels else {}
        array = array.reshape((-1,) if channels else ())
    scales = _reshaped(scales, array, state)
    return [state.node("DequantizeLinear", [codes, scales], f"{weight.name}_expanded", attributes=attributes)]


def _reshaped(scales: ir.Value, array: Floats, state: Rewriter) -> ir.Value:
    if scales.shape is not None and tuple(scales.shape) == array.shape:
        return scales
    key = ("reshaped", scales, array.shape)
    if key not in state.cache:
        state.cache[key] = state.initializer(scales.name or "scale", array)
    value: ir.Value = state.cache[key]
    return value
