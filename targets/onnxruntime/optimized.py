"""ONNX Runtime's own optimized graph of a model, with every node traced back to where it came from.

Names are the only trace: ONNX Runtime derives the names of fused and moved nodes and of their outputs from
the names of the originals. So a copy of the model is given names that no model has, ``~12~`` for the
node with the number 12 and everything it writes, and these are looked for in the optimized graph.
"""

from __future__ import annotations

import mmap
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import onnx_ir as ir

from edgeq.compiler.node_names import name_nodes
from edgeq.errors import TargetError
from edgeq.targets.onnxruntime.dtypes import infer_dtypes
from edgeq.targets.onnxruntime.session import explain, open_session, session_options

_TAG = re.compile(r"~(\d+)~")


@dataclass(frozen=True)
class OptimizedGraph:
    """``original``: the nodes of the file, in order. ``nodes``: what runs. ``origins``: node → originals.

    The names in ``nodes`` are tags; ``original`` keeps the names of the file.
    """

    original: list[ir.Node]
    nodes: list[ir.Node]
    origins: dict[ir.Node, list[ir.Node]]


def optimized_graph(path: Path) -> OptimizedGraph:
    """Load the model at ``path`` with the options of every session and read back what will run.

    Nothing stays on disk; external weights are mapped, not copied.

    Raises:
        TargetError: ONNX Runtime cannot load the model, or the temporary folder is full.
    """
    source = _read(path)
    name_nodes(source)
    original = list(source.graph.all_nodes())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="edgeq-")))
        saved = folder / "optimized.onnx"
        options = session_options(1)
        options.optimized_model_filepath = str(saved)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "data")
        try:
            _optimize(path, options, stack)
            optimized = _read(saved)
        except OSError as error:
            raise TargetError(
                f"The optimized graph of {path.name} cannot be kept in {folder}: {error}"
            ) from error
    infer_dtypes(optimized)
    nodes = list(optimized.graph.all_nodes())
    origins = {node: [original[tag] for tag in _tags(node)] for node in nodes}
    return OptimizedGraph(original, nodes, origins)


def _read(path: Path) -> ir.Model:
    if not path.is_file():
        raise TargetError(f"There is no ONNX model at {path}.", fix="Give the path of an artefact folder.")
    try:
        return ir.from_proto(onnx.load(path, load_external_data=False))
    except Exception as error:  # protobuf's and onnx_ir's errors share no base
        raise TargetError(f"{path.name} is no ONNX model: {explain(error)}") from error


def _optimize(path: Path, options: Any, stack: ExitStack) -> None:
    """Let ONNX Runtime optimize a tagged copy of the model at ``path``."""
    proto = onnx.load(path, load_external_data=False)
    files = _external_files(proto)
    tagged = ir.from_proto(proto)
    _tag_nodes(tagged)
    buffers = [stack.enter_context(_mapped(path.parent / name)) for name in files]
    if files:
        options.add_external_initializers_from_files_in_memory(files, buffers, [len(b) for b in buffers])
    copy = ir.to_proto(tagged)
    open_session(copy.SerializeToString(), options, name=path.name)


def _tag_nodes(model: ir.Model) -> None:
    for number, node in enumerate(model.graph.all_nodes()):
        node.name = f"~{number}~"
        for index, output in enumerate(node.outputs):
            if output.name:
                output.name = f"~{number}~{index}"


def _external_files(proto: onnx.ModelProto) -> list[str]:
    found = {
        entry.value
        for tensor in onnx.external_data_helper._get_all_tensors(proto)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return sorted(found)


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _tags(node: ir.Node) -> list[int]:
    """Tags in the node's name first, then those in the names of its outputs."""
    names = [node.name or "", *(output.name or "" for output in node.outputs)]
    return list(dict.fromkeys(int(tag) for name in names for tag in _TAG.findall(name)))
