"""Nodes with several outputs as a Core ML package, interpreted, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import onnx

from edgeq.calibration.types import Array
from edgeq.targets.coreml.interpreter.engine import Interpreter
from edgeq.targets.coreml.interpreter.program import read_package
from edgeq.targets.coreml.options import CoreMLOptions
from edgeq.targets.coreml.package.write import write_package
from edgeq.targets.coreml.ports import from_package, to_package
from edgeq.targets.dimensions import Dimension
from tests.support.coreml_ops import Axes, Op, Run, by_onnxruntime, lower_ops, model_of


@dataclass(frozen=True)
class Node:
    """One node: its type, inputs (empty names for those left out), which outputs it has, its attributes."""

    op_type: str
    inputs: Sequence[str]
    outputs: Sequence[bool] = (True,)
    attributes: Mapping[str, Any] = field(default_factory=dict)


def model_of_nodes(
    nodes: Sequence[Node], inputs: Mapping[str, Array], constants: Mapping[str, Array], axes: Axes | None
) -> tuple[onnx.ModelProto, list[Op]]:
    """The model, its outputs ``y0``, ``y1`` …, and an op for each of them."""
    ops = [Op(node.op_type, node.inputs, node.attributes) for node in nodes]
    model = model_of(ops, inputs, constants, axes)
    labels: list[Op] = []
    for node, proto, op in zip(nodes, model.graph.node, ops, strict=True):
        del proto.output[:]
        for there in node.outputs:
            proto.output.append(f"y{len(labels)}" if there else "")
            labels += [op] if there else []
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=f"y{index}") for index in range(len(labels)))
    return model, labels


def run_nodes(
    nodes: Sequence[Node],
    inputs: Mapping[str, Array],
    folder: Path,
    *,
    constants: Mapping[str, Array] | None = None,
    axes: Axes | None = None,
    dimensions: Mapping[str, Dimension] | None = None,
    arithmetic: Literal["float16", "float32"] = "float32",
    ios: int = 18,
) -> Run:
    """Run all nodes both ways, like :func:`run_ops`; ``Run`` has an op for every output."""
    model, labels = model_of_nodes(nodes, inputs, constants or {}, axes)
    wanted = by_onnxruntime(model, inputs)
    lowered = lower_ops(model, wanted, ios=ios, dimensions=dimensions)
    path = folder / "nodes.mlpackage"
    folder.mkdir(exist_ok=True)
    options = CoreMLOptions(dimensions=dict(dimensions or {}))
    write_package(lowered, path, ios=ios, arithmetic=arithmetic, options=options)
    feeds = to_package(lowered.signature, dict(inputs))
    found = from_package(lowered.signature, Interpreter(read_package(path)).run(feeds))
    return Run(labels, wanted, [found[f"y{index}"] for index in range(len(labels))])
