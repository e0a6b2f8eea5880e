"""Zero points for kernels that have none: a shift before the rounding that the next layer takes back.

Symmetric INT8 leaves half of its levels unused where activations have one sign (after a Relu), 6 dB. With a
zero point z, a layer reads s · (q - z). So x is shifted by c = -z · s before it is rounded with zero point 0,
the integers are the same, and the layer that reads x - c adds W c to its bias: exact, also for rounded
weights. Zeros that a convolution adds would mean c, so its padding moves before the shift, as a Pad that the
compiler fuses with the rounding: what is written and read again is larger by the border. Layers that pad
differently read roundings of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir

from edgeq.calibration.sketch import Sketch
from edgeq.compiler.model import Model
from edgeq.compiler.plan import Plan, QuantParams, QuantSpec
from edgeq.compiler.plan_nodes import attribute, constant, input_at, is_constant, rank_of
from edgeq.compiler.quantize.layer_geometry import kernel_order
from edgeq.compiler.quantize.rewriter import Rewriter
from edgeq.compiler.quantize.saturation import Floats
from edgeq.compiler.quantize.static_weights import QuantizedWeight
from edgeq.compiler.recipe import Recipe
from edgeq.errors import InternalError
from edgeq.targets.capabilities import Capabilities

# The range with a zero point is at most this share of the symmetric one: steps finer by 2 dB or more.
LARGEST_SHARE = 0.8
_ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Max", "Min"})
_LAYERS = frozenset({"Conv", "Gemm", "MatMul"})


def give_zero_points(
    graph: ir.Graph, plan: Plan, capabilities: Capabilities, sketches: Mapping[str, Sketch]
) -> list[str]:
    """Plan zero points, in place, for the activations that gain by them; returns their names.

    Only for targets of symmetric INT8 with float biases. :func:`absorb` must follow.
    """
    values = [*graph.inputs, *(output for node in graph for output in node.outputs)]
    names = [value.name or "" for value in values if can_have_zero_point(value, plan, capabilities)]
    found = [name for name in names if _one_sided(sketches[name])]
    plan.activations.update(dict.fromkeys(found, QuantSpec("int8", symmetric=False)))
    return found


def can_have_zero_point(value: ir.Value, plan: Plan, capabilities: Capabilities) -> bool:
    """Whether an activation that is planned symmetric can be shifted instead of having a zero point."""
    if capabilities.unsigned_positive or not (capabilities.symmetric_activations and capabilities.float_bias):
        return False
    name = value.name or ""
    spec = plan.activations.get(name)
    if spec is None or spec.dtype != "int8" or not spec.symmetric or name in plan.stored:
        return False
    return not any(name in group for group in plan.shared) and _can_shift(value, plan)


def _one_sided(sketch: Sketch) -> bool:
    low, high = min(float(sketch.min), 0.0), max(float(sketch.max), 0.0)
    # What is 0 on all data has no range, and a step of 1: its shift would only swamp the biases.
    return 0 < high - low <= LARGEST_SHARE * 2 * max(high, -low)


def _can_shift(value: ir.Value, plan: Plan) -> bool:
    """Whether every INT8 reader can take a shift back, and some layer does so at no cost."""
    readers = [use for use in value.uses() if _reads_int8(use.node, use.idx, plan)]
    layers = [use.node for use in readers if _is_layer(use.node, use.idx)]
    others = [use.node for use in readers if not _is_layer(use.node, use.idx)]
    if not layers or any(node.op_type not in _ELEMENTWISE for node in others):
        return False
    paddings = {_padding(node) for node in layers}
    # A sum beside a padded layer would need the value once more, without the border.
    return paddings == {0} or (paddings <= {0, 1} and not others)


def _reads_int8(node: ir.Node, index: int, plan: Plan) -> bool:
    """Whether the node computes with the rounded values, planned in INT8 itself or not."""
    planned = plan.nodes.get(node.name or "")
    read = index in plan.reads.get(node.name or "", ())
    return read or (planned is not None and planned.precision == "int8")


def _is_layer(node: ir.Node, index: int) -> bool:
    weights = input_at(node, 1)
    if node.op_type not in _LAYERS or index != 0 or not is_constant(weights):
        return False
    return node.op_type == "Conv" or (rank_of(weights) == 2 and not attribute(node, "transA", 0))


def _padding(node: ir.Node) -> int:
    """0: none; 1: explicit; 2: of a form that is left alone."""
    if node.op_type == "Conv" and attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return 2
    return int(bool(_pads(node)))


def _pads(node: ir.Node) -> tuple[int, ...]:
    """The explicit padding of a convolution, () where it has none."""
    found = node.attributes.get("pads") if node.op_type == "Conv" else None
    if found is None or attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        return ()
    pads = tuple(int(pad) for pad in found.as_ints())
    return pads if any(pads) else ()


def absorb(
    model: Model,
    names: Iterable[str],
    capabilities: Capabilities,
    recipe: Recipe,
    activations: dict[str, QuantParams],
    constants: Mapping[str, QuantizedWeight],
) -> None:
    """Take the zero points of the activations ``names`` out of the QDQ ``model``, in place."""
    edit = Rewriter(model.ir, capabilities, recipe)
    rounding = {_input(node).name: node for node in model.ir.graph if node.op_type == "QuantizeLinear"}
    for name in names:
        params = activations[name]
        activations[name] = _without(params)
        if int(params.zero_point) != 0:
            _shift(edit, rounding[name], params, constants)


def _without(params: QuantParams) -> QuantParams:
    return QuantParams(QuantSpec("int8", symmetric=True), params.scale, np.zeros_like(params.zero_point))


def _shift(
    edit: Rewriter, quantize: ir.Node, params: QuantParams, constants: Mapping[str, QuantizedWeight]
) -> None:
    """Subtract the shift before ``quantize`` and add it again in or before everything that reads it."""
    shift = np.float32(-int(params.zero_point) * np.float64(params.scale))
    (dequantize,) = (use.node for use in quantize.outputs[0].uses())
    name = _input(quantize).name or ""
    zero = edit.initializer(f"{name}_no_zero_point", np.zeros_like(params.zero_point))
    for node in (quantize, dequantize):
        node.replace_input_with(2, zero)
    for node, index in list(dequantize.outputs[0].uses()):
        if _is_quantized_layer(node, index, constants):
            _add_to_layer(edit, node, shift, constants)
        else:
            back = _add(edit, dequantize.outputs[0], shift, f"{name}_unshifted")
            edit.insert_before(node, [back])
            node.replace_input_with(index, back.outputs[0])
    for rounding, pad in _pad(edit, quantize, dequantize):
        pooling = _pooling(pad or rounding)
        reader = pooling or rounding
        moved = _add(edit, _input(reader), -shift, f"{name}_shifted")
        edit.insert_before(reader, [moved])
        reader.replace_input_with(0, moved.outputs[0])
        if pad is not None and pooling is not None:  # it adds what zeros have become
            pad.resize_inputs(3)
            pad.replace_input_with(2, edit.initializer(f"{name}_shifted_zero", np.asarray(-shift)))


def _pooling(node: ir.Node) -> ir.Node | None:
    """The MaxPool that ``node`` alone reads: rounding moves past maxima, a sum between them does not."""
    value = _input(node)
    producer = value.producer()
    if producer is None or producer.op_type != "MaxPool" or value.is_graph_output():
        return None
    return producer if len(producer.outputs) == 1 and len(list(value.uses())) == 1 else None


def _add(edit: Rewriter, value: ir.Value, number: Floats | np.float32, name: str) -> ir.Node:
    made = edit.node("Add", [value, edit.initializer(f"{name}_by", np.asarray(number, np.float32))], name)
    made.outputs[0].type, made.outputs[0].shape = value.type, value.shape
    return made


def _input(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    if value is None:
        raise InternalError(f"{node.name!r} has no input.")
    return value


def _weight(node: ir.Node, constants: Mapping[str, QuantizedWeight]) -> QuantizedWeight | None:
    value = input_at(node, 1)
    producer = None if value is None else value.producer()
    codes = None if producer is None else input_at(producer, 0)
    name = "" if codes is None else codes.name or ""
    return constants.get(name.removesuffix("_quantized"))


def _is_quantized_layer(node: ir.Node, index: int, constants: Mapping[str, QuantizedWeight]) -> bool:
    return node.op_type in _LAYERS and index == 0 and _weight(node, constants) is not None


def _add_to_layer(
    edit: Rewriter, node: ir.Node, shift: np.float32, constants: Mapping[str, QuantizedWeight]
) -> None:
    """Add what the layer makes of a constant input ``shift`` to its result."""
    weight = _weight(node, constants)
    if weight is None:
        raise InternalError(f"The weights of {node.name!r} are not quantized.")
    numbers = weight.dequantized().astype(np.float64)
    rows = numbers.transpose(kernel_order(node, numbers.ndim))
    constant_part = (float(shift) * rows.reshape(len(rows), -1).sum(axis=1)).astype(np.float32)
    if node.op_type == "MatMul":
        _add_behind(edit, node, constant_part)
        return
    bias = constant(input_at(node, 2))
    if bias is not None:
        constant_part = np.asarray(bias, np.float32) + constant_part
    node.resize_inputs(3)
    node.replace_input_with(2, edit.initializer(f"{node.name}_bias", constant_part))


def _add_behind(edit: Rewriter, node: ir.Node, numbers: Floats) -> None:
    """To a product without a bias: into the constant that is added next, or by an addition of its own."""
    result, uses = node.outputs[0], list(node.outputs[0].uses())
    following = uses[0].node if len(uses) == 1 and uses[0].node.op_type == "Add" else None
    if following is not None and not result.is_graph_output():
        index = 1 - uses[0].idx
        offset = constant(input_at(following, index))
        if offset is not None and offset.shape == numbers.shape:
            total = np.asarray(offset, np.float32) + numbers
            following.replace_input_with(index, edit.initializer(f"{following.name}_bias", total))
            return
    made = edit.node("Add", [result, edit.initializer(f"{node.name}_bias", numbers)], f"{node.name}_Bias")
    edit.follow(node, [made])


def _pad(edit: Rewriter, quantize: ir.Node, dequantize: ir.Node) -> list[tuple[ir.Node, ir.Node | None]]:
    """Pad what padded layers read before it is rounded; returns every rounding with its Pad."""
    readers: dict[tuple[int, ...], list[ir.Node]] = {}
    for node, _ in dequantize.outputs[0].uses():
        readers.setdefault(_pads(node), []).append(node)
    value, made = _input(quantize), list[tuple[ir.Node, ir.Node | None]]()
    for index, (pads, nodes) in enumerate(sorted(readers.items())):
        pair = (quantize, dequantize)
        if index > 0:
            pair = _another(edit, quantize, dequantize)
            for node in nodes:
                node.replace_input_with(0, pair[1].outputs[0])
        made.append((pair[0], _pad_before(edit, value, pads, pair) if pads else None))
        for node in nodes if pads else []:
            node.attributes.pop("pads")
    return made


def _another(edit: Rewriter, quantize: ir.Node, dequantize: ir.Node) -> tuple[ir.Node, ir.Node]:
    """A second rounding of the same value, with the same parameters."""
    copies: list[ir.Node] = []
    for node in (quantize, dequantize):
        source = copies[0].outputs[0] if copies else node.inputs[0]
        copy = edit.node(node.op_type, [source, *node.inputs[1:]], node.name or node.op_type)
        copy.outputs[0].type, copy.outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
        copies.append(copy)
    edit.insert_before(quantize, copies)
    return copies[0], copies[1]


def _pad_before(
    edit: Rewriter, value: ir.Value, pads: tuple[int, ...], pair: tuple[ir.Node, ir.Node]
) -> ir.Node:
    """A layer's own padding as a Pad of ``value`` that the rounding ``pair`` reads."""
    half = len(pads) // 2
    amounts = np.array([0, 0, *pads[:half], 0, 0, *pads[half:]], np.int64)
    made = edit.node("Pad", [value, edit.initializer(f"{value.name}_pads", amounts)], f"{value.name}_padded")
    made.outputs[0].type = value.type
    edit.insert_before(pair[0], [made])
    pair[0].replace_input_with(0, made.outputs[0])
    for node in (made, *pair):
        node.outputs[0].shape = _padded(value.shape, amounts.reshape(2, -1).sum(axis=0).tolist())
    return made


def _padded(shape: ir.Shape | None, more: list[int]) -> ir.Shape | None:
    """``shape`` with ``more`` on each axis; a dynamic size that grows has no name."""
    if shape is None:
        return None
    return ir.Shape(
        [(d + m if isinstance(d, int) else None) if m else d for d, m in zip(shape, more, strict=True)]
    )


def note(names: list[str], activations: int) -> str:
    """What the user is told."""
    return (
        f"Zero points: {len(names)} of {activations} activations lie mostly on one side of 0; they are "
        "shifted before rounding, and the biases of the layers that read them take it back."
    )
