"""Make an exported graph depend on nothing but the model: no paths, no exporter objects, stable names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir


def values(model: ir.Model) -> Iterator[ir.Value]:
    """All values of the graph and its sub-graphs: inputs, initializers and node outputs."""
    for graph in model.graphs():
        yield from graph.inputs
        yield from graph.initializers.values()
        for node in graph:
            yield from node.outputs


def strip_metadata(model: ir.Model) -> None:
    """Remove doc strings and metadata: exporters write stack traces with this machine's paths into them."""
    holders: list[ir.Model | ir.Graph | ir.Node | ir.Value] = [model, *values(model)]
    for graph in model.graphs():
        holders += [graph, *graph]
    for holder in holders:
        holder.doc_string = None
        holder.metadata_props.clear()


def plain_tensors(model: ir.Model) -> None:
    """Replace the exporter's own tensor classes by plain tensors over the same memory."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None:
                value.const_value = _plain(tensor)


def _plain(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    if tensor.dtype.bitwidth < 8 or tensor.dtype == ir.DataType.STRING:
        return tensor
    array = np.asarray(tensor.numpy())
    return ir.Tensor(array, dtype=tensor.dtype, shape=ir.Shape(array.shape), name=tensor.name)


def rename_dim(model: ir.Model, old: str, new: str) -> None:
    """Rename a symbolic dimension everywhere, also inside expressions like ``2*s0``."""
    word = re.compile(rf"\b{re.escape(old)}\b")
    for value in values(model):
        if value.shape is None or all(isinstance(dim, int) for dim in value.shape):
            continue
        value.shape = ir.Shape(
            [dim if isinstance(dim, int) else _renamed(dim.value, word, new) for dim in value.shape]
        )


def _renamed(text: str | None, word: re.Pattern[str], new: str) -> str | None:
    return None if text is None else word.sub(new, text)


def name_outputs(model: ir.Model, names: list[str]) -> None:
    """Name the graph outputs, unless that would name two values alike or rename an input."""
    outputs = list(model.graph.outputs)
    taken = {value.name for value in values(model)} - {value.name for value in outputs}
    usable = len(names) == len(outputs) and len(set(names)) == len(names) and not taken & set(names)
    once = max(Counter(id(v) for v in outputs).values(), default=0) == 1
    if not usable or not once or any(v.producer() is None for v in outputs):
        return
    for value, name in zip(outputs, names, strict=True):
        value.name = name
