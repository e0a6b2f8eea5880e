"""What one node by itself allows: whether the target's INT8 kernel could run it, else why not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgeq.targets.capabilities import Capabilities, OpRule

STANDARD_DOMAINS = ("", "ai.onnx")
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


def constant(value: ir.Value | None) -> npt.NDArray[np.generic] | None:
    """The numbers of an initializer that no caller can override, else None."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def is_constant(value: ir.Value | None) -> bool:
    """Whether :func:`constant` has a value, without reading it."""
    return value is not None and value.const_value is not None and not value.is_graph_input()


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    """Input ``index``, None when it is absent or left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def activation_ports(node: ir.Node, rule: OpRule) -> list[int]:
    """Indices of the inputs that the kernel wants quantized per tensor and that are no weights here."""
    ports = range(len(node.inputs)) if rule.variadic else rule.activations
    weights = weight_ports(node, rule)
    return [i for i in ports if input_at(node, i) is not None and i not in weights]


def weight_ports(node: ir.Node, rule: OpRule) -> dict[int, int | None]:
    """Index of each constant weight → axis of its scales (None = per tensor), never negative."""
    ports: dict[int, int | None] = {}
    for index, axis in rule.weights.items():
        value = input_at(node, index)
        if value is not None and is_constant(value):
            ports[index] = _axis(node, rule, value, axis)
    return ports


def _axis(node: ir.Node, rule: OpRule, value: ir.Value, axis: int | None) -> int | None:
    rank = rank_of(value)
    if axis is None or rank is None:
        return None
    if is_lookup(node) and attribute(node, "axis", 0) != 0:  # columns are read, not rows
        return None
    if axis < 0 and rank != 2:  # a stack of matrices has one scale: kernels take a scale per column of one
        return None
    positive = axis % rank
    swapped = rule.transposed_by and attribute(node, rule.transposed_by, 0)
    if swapped and positive >= rank - 2:
        return 2 * rank - 3 - positive
    return positive


def attribute(node: ir.Node, name: str, default: object) -> object:
    """The value of an attribute; strings are decoded."""
    found = node.attributes.get(name)
    if found is None or found.is_ref():
        return default
    return found.value.decode() if isinstance(found.value, bytes) else found.value


def rank_of(value: ir.Value | None) -> int | None:
    """Number of dimensions when it is known."""
    return None if value is None or value.shape is None else len(value.shape)


def is_float(value: ir.Value | None) -> bool:
    """Whether the tensor is of a floating-point type (an unknown type counts as float)."""
    return value is not None and (value.dtype is None or value.dtype in _FLOATS)


def computes_float(node: ir.Node) -> bool:
    """Whether the node makes floating-point values: shapes and indices are no matter of precision."""
    return any(is_float(output) for output in node.outputs)


def is_lookup(node: ir.Node) -> bool:
    """Whether the node reads from a constant table (an embedding)."""
    return node.op_type == "Gather" and is_constant(node.inputs[0])


def why_not_int8(node: ir.Node, rule: OpRule, capabilities: Capabilities) -> str | None:
    """Why the kernel of ``rule`` cannot run ``node``; None when it can."""
    checks = [_why_not_attributes, _why_not_table, _why_not_types, _why_not_weights]
    if not capabilities.keeps_absorbed:
        checks.append(_why_not_clip)
    if not capabilities.float_bias:
        checks.append(_why_not_bias)
    return next((reason for check in checks if (reason := check(node, rule))), None)


_ATTRIBUTE_DEFAULTS: dict[str, object] = {"mode": "nearest"}


def _why_not_attributes(node: ir.Node, rule: OpRule) -> str | None:
    for name, allowed in rule.attributes.items():
        value = attribute(node, name, _ATTRIBUTE_DEFAULTS.get(name, allowed[0]))
        if value not in allowed:
            return f"the INT8 kernel takes {name}={' or '.join(map(str, allowed))} only, not {value}"
    rank = rank_of(input_at(node, 0))
    if rule.ranks and rank is not None and rank not in rule.ranks:
        return f"the INT8 kernel takes no input of {rank} dimensions"
    if rule.inputs and len(node.inputs) != rule.inputs:
        return f"the INT8 kernel takes {rule.inputs} inputs, not {len(node.inputs)}"
    return None


def clip_bounds(node: ir.Node) -> tuple[float, float] | None:
    """Lower and upper bound of a Clip when both are constant or absent."""
    bounds = []
    for index, default in ((1, -np.inf), (2, np.inf)):
        value = input_at(node, index)
        if value is None:
            bounds.append(default)
            continue
        number = constant(value)
        if number is None:
            return None
        bounds.append(float(number.reshape(-1)[0]))
    return bounds[0], bounds[1]


def _why_not_clip(node: ir.Node, rule: OpRule) -> str | None:
    if rule.role != "absorb" or node.op_type != "Clip":
        return None
    bounds = clip_bounds(node)
    if bounds is None:
        return "its bounds are computed at run time"
    # Only a bound of 0 falls exactly on the end of the unsigned range.
    if bounds[0] != 0 or bounds[1] <= 0:
        return (
            f"only a Clip from 0 is absorbed by rounding to INT8, not one from {bounds[0]:g} to {bounds[1]:g}"
        )
    return None


# Below this many numbers a table costs more nodes than it saves bytes.
SMALLEST_TABLE = 4096


def _why_not_table(node: ir.Node, rule: OpRule) -> str | None:
    if rule.role == "lookup" and not is_lookup(node):
        return "it reads no constant table: values pass it in float"
    table = node.inputs[0].const_value if is_lookup(node) and node.inputs[0] is not None else None
    if table is not None and table.size < SMALLEST_TABLE:
        return f"its table has {table.size} numbers only"
    return None


def _why_not_types(node: ir.Node, rule: OpRule) -> str | None:
    values = [input_at(node, i) for i in activation_ports(node, rule)]
    for value in [*values, *node.outputs]:
        dtype = None if value is None else value.dtype
        if dtype not in (ir.DataType.FLOAT, None):
            return f"its values are {dtype.name.lower()}, not float32"
    if not is_lookup(node) and all(is_constant(v) for v in values):
        return "its inputs are constants"
    if any(_is_empty(v) for v in values):
        return "a tensor of it is empty"
    return None


def _is_empty(value: ir.Value | None) -> bool:
    return value is not None and value.shape is not None and any(d == 0 for d in value.shape)


def _why_not_weights(node: ir.Node, rule: OpRule) -> str | None:
    for index in rule.weights:
        value = input_at(node, index)
        if value is None or index in activation_ports(node, rule):
            continue
        numbers = constant(value)
        if numbers is None:
            return "its weights are computed at run time"
        if reason := _why_not_numbers(numbers):
            return reason
    return None


def _why_not_numbers(numbers: npt.NDArray[np.generic]) -> str | None:
    if numbers.dtype != np.float32:
        return f"its weights are {numbers.dtype}, not float32"
    if numbers.size == 0:
        return "its weights are empty"
    if numbers.ndim < 2:
        return "its weights have fewer than two dimensions"
    if not np.isfinite(numbers).all():
        return "its weights hold NaN or infinite values"
    return None


def _why_not_bias(node: ir.Node, rule: OpRule) -> str | None:
    if rule.bias is None or (bias := input_at(node, rule.bias)) is None:
        return None
    numbers = constant(bias)
    if numbers is None:
        return "its bias is computed at run time"
    channels = node.outputs[0].shape
    if numbers.ndim > 1 and numbers.size != numbers.shape[-1]:
        return "its bias is a matrix"
    if numbers.ndim == 0 or (numbers.size == 1 and node.op_type == "Gemm" and channels and channels[-1] != 1):
        return "its bias is one number for all channels"
    if not np.isfinite(numbers).all():
        return "its bias holds NaN or infinite values"
    return None
