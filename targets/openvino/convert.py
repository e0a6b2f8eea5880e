"""From a quantized ONNX model to IR files whose bytes depend on the model and the options alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgeq.calibration.types import TensorSpec
from edgeq.compiler.model import Model
from edgeq.compiler.node_names import name_nodes
from edgeq.compiler.plan import Plan
from edgeq.errors import ModelError, TargetError
from edgeq.targets.dimensions import Dimension, dynamic_axes
from edgeq.targets.openvino.files import MODEL, WEIGHTS
from edgeq.targets.openvino.float_weights import round_to_half, store_exact_halves
from edgeq.targets.openvino.names import is_anonymous, made_for, name_layers
from edgeq.targets.openvino.options import Rest
from edgeq.targets.openvino.session import explain, read_model


def prepare(model: Model, plan: Plan, rest: Rest) -> tuple[Model, tuple[str, ...]]:
    """The ONNX model that the IR is made of, and notes: float weights are float16 where ``rest`` says so."""
    prepared = model.without_metadata()
    name_nodes(prepared.ir)
    notes: tuple[str, ...] = ()
    if rest == "fp16":
        pinned = {node.name for node in plan.nodes.values() if node.pinned}
        too_large = round_to_half(prepared.ir, pinned)
        if too_large:
            shown = ", ".join(too_large[:3])
            notes = (f"{len(too_large)} constant(s) do not fit float16 and stay float32: {shown}.",)
    name_layers(prepared.ir)
    return prepared, notes


def write_ir(
    onnx_file: Path, inputs: Sequence[TensorSpec], dimensions: Mapping[str, Dimension], folder: Path
) -> tuple[str, ...]:
    """Write the IR of ``onnx_file`` (see :func:`prepare`) into ``folder``; returns the names of its files.

    Raises:
        TargetError: OpenVINO cannot express the model, or the files cannot be written.
    """
    import openvino

    try:
        network = read_model(onnx_file)
    except ModelError as error:
        raise TargetError(error.what, fix="Compile it for onnxruntime, which has all operators.") from error
    _set_shapes(network, inputs, dimensions)
    _simplify(network)
    store_exact_halves(network)
    _name_anonymous(network, ir.load(onnx_file).graph)
    try:
        openvino.save_model(network, str(folder / MODEL), compress_to_fp16=False)
    except RuntimeError as error:
        raise TargetError(
            f"The model cannot be written to {folder}: {explain(error)}",
            fix="Free space there, or choose another output folder.",
        ) from error
    return MODEL, WEIGHTS


def _set_shapes(network: Any, inputs: Sequence[TensorSpec], dimensions: Mapping[str, Dimension]) -> None:
    """Give the dynamic dimensions that have sizes theirs."""
    import openvino

    shapes = {}
    for spec in inputs:
        named = dict(dynamic_axes(spec))
        if not any(name in dimensions for name in named.values()):
            continue
        shape = network.input(spec.name).get_partial_shape()
        for axis, name in named.items():
            if name in dimensions:
                size = dimensions[name]
                shape[axis] = openvino.Dimension(size.smallest, size.largest)
        shapes[spec.name] = shape
    if not shapes:
        return
    try:
        network.reshape(shapes)
    except RuntimeError as error:
        raise TargetError(
            f"OpenVINO cannot give the model these sizes: {explain(error)}", fix="Choose other dimensions."
        ) from error


def _simplify(network: Any) -> None:
    """Rounding and unrounding become one FakeQuantize, shapes are computed; integers stay integers.

    OpenVINO would do the same when it compiles: in the file it saves half of ``model.xml``.
    """
    from openvino import _offline_transformations

    _offline_transformations.apply_moc_transformations(network, cf=False)


def _name_anonymous(network: Any, graph: ir.Graph) -> None:
    """Name layers that OpenVINO has numbered after the node of ``graph`` that they are made of.

    Those that are made of none are named after the layer that reads them. OpenVINO's own numbers count what
    the process has made before: files would differ.
    """
    nodes = {node.name or "": node.op_type for node in graph.all_nodes()}
    recurrences = _weights_of_recurrences(graph)
    owners: dict[str, str] = {}
    for index, layer in reversed(list(enumerate(network.get_ordered_ops()))):
        kind, name = layer.get_type_name(), layer.get_friendly_name()
        if not is_anonymous(name):
            owners[name] = name
            continue
        owner = _made_of(layer, nodes) or _recurrence(layer, recurrences)
        owner = owner or next((owners[n] for n in _readers(layer) if n in owners), "")
        layer.set_friendly_name(made_for(owner, kind, index))
        owners[layer.get_friendly_name()] = owner


def _made_of(layer: Any, nodes: Mapping[str, str]) -> str | None:
    """The ONNX node among those that were fused into ``layer``; of several the one of its type."""
    info = layer.get_rt_info()
    fused = info["fused_names_0"].astype(str).split(",") if "fused_names_0" in info else []
    known = [name for name in fused if name in nodes]
    alike = [name for name in known if layer.get_type_name().startswith(nodes[name])]
    return next(iter(alike or known), None)


_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})


def _weights_of_recurrences(graph: ir.Graph) -> dict[str, str]:
    """Name of a weight (or of what dequantizes it) → the recurrent node that reads it."""
    recurrent = [node for node in graph.all_nodes() if node.op_type in _RECURRENT]
    return {value.name or "": node.name or "" for node in recurrent for value in node.inputs[1:3] if value}


def _recurrence(layer: Any, weights: Mapping[str, str]) -> str | None:
    """The recurrent node that ``layer`` computes: OpenVINO tells it by the weights alone."""
    if not layer.get_type_name().endswith("Sequence"):
        return None
    sources = (port.get_source_output().get_node().get_friendly_name() for port in layer.inputs())
    return next((weights[name] for name in sources if name in weights), None)


def _readers(layer: Any) -> Iterator[str]:
    for port in layer.outputs():
        for target in port.get_target_inputs():
            yield target.get_node().get_friendly_name()
