"""All rules: what each is called, what becomes of a node that breaks it, how it is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from edgeq.targets.tensorrt.lint import axes, placement, types, unsupported
from edgeq.targets.tensorrt.lint.graph import Graph, Problem

Outcome = Literal["fails", "wrong", "float", "slow", "note"]


@dataclass(frozen=True)
class Rule:
    """``title`` says in a line what is forbidden."""

    outcome: Outcome
    title: str
    check: Callable[[Graph], Iterator[Problem]]


RULES: Mapping[str, Rule] = {
    "zero-point": Rule("fails", "a zero point other than 0", types.zero_point),
    "uint8-activations": Rule("wrong", "UINT8 activations are read as INT8", types.unsigned_activations),
    "uint8-weights": Rule("fails", "UINT8 weights", types.unsigned_weights),
    "code-type": Rule("fails", "codes of INT16, UINT16, UINT4, FP8 E5M2", types.unreadable_type),
    "int32-bias": Rule("fails", "an INT32 bias with a DequantizeLinear", types.integer_bias),
    "scale-value": Rule("fails", "a scale that is 0, negative or no number", types.bad_scale),
    "scale-infinite": Rule("wrong", "an infinite scale", types.endless_scale),
    "scale-subnormal": Rule("note", "a subnormal float16 scale", types.small_scale),
    "scales-differ": Rule(
        "wrong", "QuantizeLinear and DequantizeLinear with different scales", types.different_scales
    ),
    "weight-axis": Rule(
        "float", "INT8 weights with scales along another axis than the output channels", axes.weight_axis
    ),
    "activation-axis": Rule("float", "activations with several scales", axes.activation_axis),
    "one-side": Rule("float", "only one input of a Conv, MatMul or Gemm is quantized", placement.one_side),
    "op-between": Rule(
        "float", "an op between DequantizeLinear and the INT8 op that works in float", placement.op_between
    ),
    "conv-transpose": Rule("float", "a quantized ConvTranspose", placement.transposed_convolution),
    "runtime-scale": Rule(
        "float", "a scale computed at run time before a MatMul or Gemm", placement.runtime_scale
    ),
    "runtime-scale-conv": Rule(
        "fails", "a scale computed at run time before a Conv", placement.runtime_scale_convolution
    ),
    "integer-op": Rule(
        "fails", "operators of dynamic or operator-oriented quantization", unsupported.integer_op
    ),
}
