# ruff: noqa: E501 - one rule per line reads as the table that it is
"""All rules: what each is called, what becomes of a node that breaks it, how it is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from edgeq.targets.base import Outcome
from edgeq.targets.tensorrt.lint import (
    axes,
    blocks,
    codes,
    efficiency,
    hardware,
    placement,
    types,
    unsupported,
)
from edgeq.targets.tensorrt.lint.graph import Graph, Problem


@dataclass(frozen=True)
class Rule:
    """``title`` says in a line what is forbidden."""

    outcome: Outcome
    title: str
    check: Callable[[Graph], Iterator[Problem]]


# fmt: off
RULES: Mapping[str, Rule] = {
    "zero-point": Rule("fails", "a zero point other than 0", types.zero_point),
    "zero-point-empty": Rule("fails", "a zero point with an empty name", types.empty_zero_point),
    "code-type": Rule("fails", "codes of INT16, UINT16, UINT4, FP8 E5M2", types.unreadable_type),
    "uint8-weights": Rule("fails", "UINT8 weights", types.unsigned_weights),
    "uint8-activations": Rule("wrong", "UINT8 activations: read as INT8, half of the range is cut off", types.unsigned_activations),
    "int32-bias": Rule("fails", "an INT32 bias with a DequantizeLinear", types.integer_bias),
    "scale-value": Rule("fails", "a scale that is 0, negative or no number (INT4 weights may have any)", types.bad_scale),
    "scale-infinite": Rule("wrong", "an infinite scale; of INT4 weights also one that is no number", types.endless_scale),
    "scales-differ": Rule("wrong", "QuantizeLinear and DequantizeLinear with different scales", types.different_scales),
    "scale-subnormal": Rule("note", "a subnormal float16 scale", types.small_scale),
    "float-types": Rule("fails", "float types that meet in an op, often by the type of a scale or a bias", types.mixed_floats),
    "code-types-mixed": Rule("fails", "FP8 with INT8 or INT4; a Conv with INT8 and INT4", types.mixed_codes),
    "codes-scalar": Rule("fails", "a quantized constant without dimensions", codes.scalar_codes),
    "codes-stray": Rule("fails", "a quantized constant that another op than DequantizeLinear reads", codes.stray_codes),
    "opset": Rule("note", "several scales, INT4, FP8 or blocks in an opset before they came", types.old_opset),
    "weight-axis": Rule("float", "weights with scales along another axis than the output channels", axes.weight_axis),
    "activation-axis": Rule("float", "activations with several scales", axes.activation_axis),
    "one-side": Rule("float", "only one input of a Conv, MatMul or Gemm is quantized", placement.one_side),
    "op-between": Rule("float", "an op that computes in float between DequantizeLinear and the INT8 op", placement.op_between),
    "conv-transpose": Rule("float", "a quantized ConvTranspose", placement.transposed_convolution),
    "runtime-scale": Rule("float", "a scale computed at run time before a MatMul or Gemm", placement.runtime_scale),
    "runtime-scale-conv": Rule("fails", "a scale computed at run time before a Conv", placement.runtime_scale_convolution),
    "int4-whole": Rule("float", "INT4 weights without blocks, or with one block", blocks.int4_whole),
    "int4-columns": Rule("float", "INT4 weights of an odd number of output channels", blocks.odd_columns),
    "int4-conv": Rule("float", "INT4 weights of a Conv", blocks.int4_convolution),
    "int4-left": Rule("fails", "INT4 weights in blocks as the left matrix", blocks.int4_left),
    "int4-int8": Rule("fails", "INT4 weights with one scale, and quantized activations", blocks.int4_tensor),
    "block-activations": Rule("fails", "weights in blocks, and quantized activations", blocks.block_activations),
    "block-activations-plain": Rule("wrong", "weights in blocks, and quantized activations, in one plain product: scales of other channels are used", blocks.block_activations_plain),
    "block-8bit": Rule("float", "8-bit weights in blocks", blocks.int8_blocks),
    "block-uneven": Rule("fails", "blocks that do not divide the axis", blocks.uneven_blocks),
    "block-stretched": Rule("wrong", "blocks that do not divide the axis where their number does: taken as shorter ones", blocks.stretched_blocks),
    "block-axis": Rule("fails", "blocks along an axis before the last two", blocks.block_axis),
    "block-one": Rule("fails", "blocks of one value", blocks.block_of_one),
    "block-size": Rule("note", "INT4 blocks other than 16, 32, 64 or 128", blocks.block_size),
    "sm75-conv": Rule("float", "a quantized Conv on SM75", hardware.turing_convolution),
    "sm75-float32": Rule("fails", "a MatMul or Gemm in float32 on SM75, quantized or not", hardware.turing_matrix),
    "sm75-int4": Rule("fails", "INT4 on SM75", hardware.turing_int4),
    "sm-fp8": Rule("fails", "FP8 before SM89", hardware.old_fp8),
    "sm-fp4": Rule("fails", "FP4 before SM120", hardware.old_fp4),
    "integer-op": Rule("fails", "operators with quantized arithmetic inside: dynamic INT8, QLinear*, MatMulNBits", unsupported.integer_op),
    "unknown-op": Rule("fails", "other operators that TensorRT has not", unsupported.unknown_op),
    "float-between": Rule("slow", "a float Conv between INT8 ops", efficiency.float_between),
    "float-skip": Rule("slow", "a residual Add that reads in float what is there in INT8", efficiency.float_skip),
    "rounded-activation": Rule("note", "rounding between a product and its activation", efficiency.rounded_before_activation),
    "rounded-branch": Rule("note", "rounding between a product and the residual Add behind it", efficiency.rounded_branch),
    "dynamic-shape": Rule("note", "a dynamic dimension whose sizes are not given", efficiency.dynamic_shape),
    "idle": Rule("note", "rounding for an op without INT8 arithmetic", efficiency.idle),
}
# fmt: on
