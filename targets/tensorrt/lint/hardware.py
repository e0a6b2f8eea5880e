"""Rules that depend on the compute capabilities that an engine is built for."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from edgeq.targets.tensorrt.architectures import FIRST, TURING
from edgeq.targets.tensorrt.lint.graph import MATRIX, Graph, Problem

_FP8 = frozenset({ir.DataType.FLOAT8E4M3FN})
_FP4 = frozenset({ir.DataType.FLOAT4E2M1})
_INT4 = frozenset({ir.DataType.INT4})


def turing_convolution(graph: Graph) -> Iterator[Problem]:
    """An INT8 Conv on SM75."""
    if TURING not in graph.sm:
        return
    for node in graph.computing("Conv"):
        if all(graph.operand(node, index).quantizer is not None for index in (0, 1)):
            yield Problem(
                node,
                "SM75 runs quantized convolutions in float",
                "Build for SM80 or newer; or leave Conv in FP16.",
            )


def turing_matrix(graph: Graph) -> Iterator[Problem]:
    """A MatMul or Gemm of float32 values on SM75, INT8 or not."""
    if TURING not in graph.sm:
        return
    for node in graph.computing(*MATRIX):
        if graph.types.get(node.inputs[0]) == ir.DataType.FLOAT:
            yield Problem(
                node,
                "SM75 has no matrix product of float32 values, quantized or not",
                "Convert the model to float16, its scales as well (precision=fp16).",
            )


def turing_int4(graph: Graph) -> Iterator[Problem]:
    """INT4 on SM75."""
    yield from _missing(graph, _INT4, "INT4", "SM80 or newer")


def old_fp8(graph: Graph) -> Iterator[Problem]:
    """FP8 before SM89."""
    yield from _missing(graph, _FP8, "FP8", "SM89 or newer")


def old_fp4(graph: Graph) -> Iterator[Problem]:
    """FP4 before Blackwell."""
    yield from _missing(graph, _FP4, "FP4", "SM120")


def _missing(graph: Graph, kinds: frozenset[ir.DataType], name: str, needed: str) -> Iterator[Problem]:
    """Each quantizer with such codes, once for a pair, where a GPU is too old for them."""
    without = [sm for sm in graph.sm if sm < FIRST[name]]
    if not without:
        return
    shown = ", ".join(f"SM{sm}" for sm in without)
    for quantizer in graph.quantizers.values():
        producer = quantizer.source.producer()
        if quantizer.codes in kinds and (producer is None or producer not in graph.quantizers):
            yield Problem(quantizer.node, f"{shown} has no {name}", f"Build for {needed}, or use INT8.")
    if kinds == _FP4:
        for node in graph.nodes:
            if node.op_type == "TRT_FP4DynamicQuantize":
                yield Problem(node, f"{shown} has no {name}", f"Build for {needed}, or use INT8.")
