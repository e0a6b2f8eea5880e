"""Rules about element types, scales and zero points of single quantizers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from edgeq.targets.tensorrt.lint.graph import (
    DEQUANTIZE,
    MATRIX,
    QUANTIZE,
    Graph,
    Problem,
    Quantizer,
)

_SYMMETRIC = "Quantize symmetrically: int8 codes with the zero point 0."
_UNREADABLE = {
    ir.DataType.INT16: "INT16", ir.DataType.UINT16: "UINT16", ir.DataType.UINT4: "UINT4",
    ir.DataType.INT2: "INT2", ir.DataType.UINT2: "UINT2",
    ir.DataType.FLOAT8E5M2: "FP8 E5M2", ir.DataType.FLOAT8E5M2FNUZ: "FP8 E5M2FNUZ",
    ir.DataType.FLOAT8E4M3FNUZ: "FP8 E4M3FNUZ",
}  # fmt: skip
_FP8 = ir.DataType.FLOAT8E4M3FN
_TAKEN = {ir.DataType.INT8, ir.DataType.INT4, _FP8}
# Smallest float16 that has all its bits.
_SMALLEST_HALF = 2.0**-14


def zero_point(graph: Graph) -> Iterator[Problem]:
    """A zero point that is not 0."""
    for quantizer in graph.quantizers.values():
        if quantizer.zero is None or not quantizer.zero.any() or quantizer.codes in _UNREADABLE:
            continue
        shown = _first(quantizer.zero[quantizer.zero != 0])
        kind = "" if quantizer.codes is None else f" ({quantizer.codes.name})"
        yield Problem(quantizer.node, f"its zero point is {shown}{kind}; only 0 is taken", _SYMMETRIC)


def unsigned_activations(graph: Graph) -> Iterator[Problem]:
    """UINT8 activations with the zero point 0, which are read as INT8."""
    for quantizer in _first_of_pairs(graph):
        if quantizer.of_weights or quantizer.codes != ir.DataType.UINT8 or _nonzero(quantizer):
            continue
        yield Problem(
            quantizer.node,
            "its activations are UINT8 and are taken as INT8: everything above 127 scales is cut off",
            "Quantize to int8 with a scale twice as large.",
        )


def unsigned_weights(graph: Graph) -> Iterator[Problem]:
    """UINT8 weights."""
    for quantizer in graph.quantizers.values():
        stored = quantizer.node.op_type == DEQUANTIZE and graph.constants.known(quantizer.source)
        if stored and quantizer.codes == ir.DataType.UINT8 and not _nonzero(quantizer):
            yield Problem(
                quantizer.node, "its constant codes are UINT8, which is no type of weights", _SYMMETRIC
            )


def unreadable_type(graph: Graph) -> Iterator[Problem]:
    """16-bit, unsigned 4-bit, 2-bit codes and the FP8 types other than E4M3."""
    for quantizer in _first_of_pairs(graph):
        if quantizer.codes in _UNREADABLE:
            kind = _UNREADABLE[quantizer.codes]
            yield Problem(
                quantizer.node,
                f"its codes are {kind}, which TensorRT does not read",
                _other_type(quantizer.codes),
            )


def integer_bias(graph: Graph) -> Iterator[Problem]:
    """An INT32 tensor behind a DequantizeLinear: the bias as ONNX Runtime writes it."""
    for quantizer in graph.quantizers.values():
        if quantizer.node.op_type == DEQUANTIZE and quantizer.codes == ir.DataType.INT32:
            yield Problem(
                quantizer.node,
                "it dequantizes INT32, as ONNX Runtime writes biases",
                "Keep the bias in float (quantize_static: extra_options QuantizeBias=False).",
            )


def bad_scale(graph: Graph) -> Iterator[Problem]:
    """A scale that is 0, negative or no number; 4-bit weights alone may have any."""
    for quantizer in _first_of_pairs(graph):
        scale = quantizer.scale
        if scale is None or quantizer.codes == ir.DataType.INT4 or bool((scale > 0).all()):
            continue
        yield Problem(
            quantizer.node,
            f"its scale is {_first(scale[~(scale > 0)])}; only positive numbers are taken",
            "Calibrate again, or give tensors that are always 0 any positive scale.",
        )


def endless_scale(graph: Graph) -> Iterator[Problem]:
    """An infinite scale, or one of 4-bit weights that is no number."""
    for quantizer in _first_of_pairs(graph):
        scale = quantizer.scale
        wrong = (
            None
            if scale is None
            else ~np.isfinite(scale)
            if quantizer.codes == ir.DataType.INT4
            else np.isinf(scale)
        )
        if scale is not None and wrong is not None and wrong.any():
            yield Problem(
                quantizer.node,
                f"its scale is {_first(scale[wrong])}, and the engine is built all the same",
                "Calibrate again without infinite values in the data.",
            )


def empty_zero_point(graph: Graph) -> Iterator[Problem]:
    """A zero point that is written as an empty name."""
    for quantizer in graph.quantizers.values():
        if len(quantizer.node.inputs) > 2 and quantizer.node.inputs[2] is None:
            yield Problem(
                quantizer.node,
                "its third input, the zero point, has an empty name",
                "Leave the third input out, or give the zero point 0.",
            )


def mixed_floats(graph: Graph) -> Iterator[Problem]:
    """Float types that meet in an op; a DequantizeLinear writes the type of its scale."""
    for node in graph.nodes:
        inputs = graph.types.mixed(node)
        if inputs:
            shown = ", ".join(f"{value.name!r} {kind.name}" for value, kind in inputs)
            yield Problem(
                node,
                f"its inputs are of different types: {shown}",
                "Give scales and biases the type of the graph around them: the type of a scale is that of "
                "what its DequantizeLinear writes.",
            )


def mixed_codes(graph: Graph) -> Iterator[Problem]:
    """An op with quantized inputs of different 8-bit types, or FP8 with INT4."""
    for node in graph.computing("Conv", *MATRIX):
        sides = [graph.operand(node, index).quantizer for index in (0, 1)]
        kinds = {side.codes for side in sides if side is not None and side.codes is not None}
        if len(kinds) == 2 and kinds <= _TAKEN and (_FP8 in kinds or node.op_type == "Conv"):
            shown = " and ".join(sorted(kind.name for kind in kinds))
            yield Problem(node, f"its inputs are quantized to {shown}", "Quantize both to one type.")


def old_opset(graph: Graph) -> Iterator[Problem]:
    """Codes or blocks that the declared opset does not have: TensorRT takes them, ONNX Runtime does not."""
    for quantizer in graph.quantizers.values():
        needed = _opset(quantizer)
        if quantizer.node.domain == "" and graph.opset < needed:
            yield Problem(
                quantizer.node,
                f"what it holds came with opset {needed}, the model declares opset {graph.opset}",
                f"Export with opset {needed} or newer, so that other tools read the model as well.",
            )


def _opset(quantizer: Quantizer) -> int:
    if quantizer.block or (quantizer.codes is not None and quantizer.codes.bitwidth == 4):
        return 21
    if quantizer.codes is not None and "FLOAT8" in quantizer.codes.name:
        return 19
    return 10 if quantizer.per_tensor else 13


def small_scale(graph: Graph) -> Iterator[Problem]:
    """A float16 scale below the normal numbers, which holds few bits."""
    for quantizer in _first_of_pairs(graph):
        scale = quantizer.scale
        if scale is None or graph.constants.dtype(quantizer.node.inputs[1]) != ir.DataType.FLOAT16:
            continue
        small = (np.abs(scale) < _SMALLEST_HALF) & (scale != 0)
        if small.any():
            yield Problem(
                quantizer.node,
                f"its float16 scale {_first(scale[small])} is subnormal and holds only some of its bits",
                "Keep this part in float32, or scale the tensor up before it is quantized.",
            )


def different_scales(graph: Graph) -> Iterator[Problem]:
    """A DequantizeLinear that does not undo its QuantizeLinear."""
    for quantizer in graph.quantizers.values():
        producer = quantizer.source.producer()
        if quantizer.node.op_type != DEQUANTIZE or producer is None or producer.op_type != QUANTIZE:
            continue
        before = graph.quantizers.get(producer)
        if before is None or _same(before.scale, quantizer.scale):
            continue
        yield Problem(
            quantizer.node,
            f"its scale {_first(quantizer.scale)} is not the scale {_first(before.scale)} of the "
            f"QuantizeLinear {producer.name!r} that it undoes",
            "Give both the same scale.",
        )


def _first_of_pairs(graph: Graph) -> Iterator[Quantizer]:
    """All quantizers without those DequantizeLinears whose QuantizeLinear says the same before them."""
    for quantizer in graph.quantizers.values():
        producer = quantizer.source.producer()
        before = graph.quantizers.get(producer) if producer is not None else None
        if before is None or before.codes != quantizer.codes or not _same(before.scale, quantizer.scale):
            yield quantizer


def _nonzero(quantizer: Quantizer) -> bool:
    return quantizer.zero is not None and bool(quantizer.zero.any())


def _same(one: object, other: object) -> bool:
    if not isinstance(one, np.ndarray) or not isinstance(other, np.ndarray):
        return True
    return one.size == other.size and bool(np.array_equal(one.ravel(), other.ravel(), equal_nan=True))


def _first(values: object) -> str:
    if not isinstance(values, np.ndarray) or values.size == 0:
        return "unknown"
    return f"{values.ravel()[0]:.6g}"


def _other_type(codes: ir.DataType) -> str:
    if "FLOAT8" in codes.name:
        return "Use FP8 E4M3 (FLOAT8E4M3FN)."
    return "Use int4 in blocks for weights." if codes.bitwidth < 8 else "Use int8 with the zero point 0."
