"""Rules about where QuantizeLinear and DequantizeLinear stand."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from edgeq.targets.tensorrt.lint.graph import COMPUTE, MATRIX, QUANTIZE, Graph, Operand, Problem


def one_side(graph: Graph) -> Iterator[Problem]:
    """Only one input of a Conv, MatMul or Gemm is quantized, and nothing stands in the way of the other."""
    for node in graph.computing("Conv", *MATRIX):
        sides = (graph.operand(node, 0), graph.operand(node, 1))
        quantized = [side.quantizer is not None for side in sides]
        if (
            quantized[0] == quantized[1]
            or _int4(sides)
            or _behind(graph, node, quantized.index(False)) is not None
        ):
            continue
        missing = quantized.index(False)
        if sides[1 - missing].constant and not graph.has_activations and node.op_type in MATRIX:
            continue  # weights alone, as meant
        yield Problem(
            node,
            f"its {_name(sides, missing)} are not quantized, its {_name(sides, 1 - missing)} are",
            _one_side_mend(sides, missing),
        )


def op_between(graph: Graph) -> Iterator[Problem]:
    """An op between DequantizeLinear and a Conv, MatMul or Gemm that INT8 does not pass through."""
    for node in graph.computing("Conv", *MATRIX):
        sides = (graph.operand(node, 0), graph.operand(node, 1))
        for index in (0, 1):
            blocker = _behind(graph, node, index)
            if blocker is not None and sides[1 - index].quantizer is not None:
                yield Problem(
                    node,
                    f"the {blocker.op_type} {blocker.name!r} lies between its input {index} and the "
                    "DequantizeLinear before it",
                    f"Quantize again after the {blocker.op_type}."
                    if blocker.op_type != "Concat"
                    else "Give all inputs of the Concat one scale, or quantize again after it.",
                )


def transposed_convolution(graph: Graph) -> Iterator[Problem]:
    """A ConvTranspose with quantized inputs."""
    for node in graph.computing("ConvTranspose"):
        if any(graph.operand(node, index).quantizer is not None for index in (0, 1)):
            yield Problem(
                node,
                "there is no INT8 ConvTranspose; its inputs are rounded for nothing",
                "Leave it in float.",
            )


def runtime_scale(graph: Graph) -> Iterator[Problem]:
    """A scale that is computed at run time before a MatMul or Gemm."""
    yield from _runtime(graph, MATRIX)


def runtime_scale_convolution(graph: Graph) -> Iterator[Problem]:
    """A scale that is computed at run time before a Conv."""
    yield from _runtime(graph, ("Conv", "ConvTranspose"))


def _runtime(graph: Graph, op_types: tuple[str, ...]) -> Iterator[Problem]:
    for node in graph.computing(*op_types):
        for index in (0, 1):
            quantizer = graph.operand(node, index).quantizer
            if (
                quantizer is None
                or quantizer.scale is not None
                or graph.constants.known(quantizer.node.inputs[1])
            ):
                continue
            yield Problem(
                node,
                f"the scale of its input {index} is no constant",
                "Calibrate, and write the scale into the model: dynamic INT8 is no scheme of TensorRT.",
            )


def _behind(graph: Graph, node: ir.Node, index: int) -> ir.Node | None:
    """The op that keeps the DequantizeLinear before it from input ``index``."""
    blocker = graph.operand(node, index).blocker
    if blocker is None or blocker.op_type in (*COMPUTE, QUANTIZE):
        return None
    for position, value in enumerate(blocker.inputs):
        quantizer = None if value is None else graph.operand(blocker, position).quantizer
        if quantizer is not None and not quantizer.of_weights:
            return blocker
    return None


def _int4(sides: tuple[Operand, Operand]) -> bool:
    """INT4 is for weights alone; a Conv with it has a rule of its own."""
    kinds = [side.quantizer.codes for side in sides if side.quantizer is not None]
    return ir.DataType.INT4 in kinds


def _name(sides: tuple[Operand, Operand], index: int) -> str:
    if sides[index].constant:
        return "weights"
    return "activations" if sides[1 - index].constant else f"input {index}"


def _one_side_mend(sides: tuple[Operand, Operand], missing: int) -> str:
    if sides[missing].constant:
        return "Quantize the weights as well: INT8 with the zero point 0, per output channel."
    return "Quantize the activations as well, with one scale; or leave the op in float."
