"""Load an ONNX file: parse, check, map external data, hash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from edgeq.compiler.load.digest import files_sha256
from edgeq.compiler.load.external_data import ExternalFiles, attach
from edgeq.compiler.load.graph_order import sort_nodes
from edgeq.compiler.load.opsets import (
    check_domains,
    check_opset,
    drop_unused_imports,
    lower_newer_opset,
    unify_default_domain,
)
from edgeq.compiler.load.sparse import densify
from edgeq.compiler.load.tensors import check_tensors
from edgeq.compiler.load.validity import check_valid
from edgeq.compiler.model import Model, Source
from edgeq.errors import ModelError
from edgeq.progress import Progress

# How other files begin that people hand over by mistake.
_MAGIC = (
    (b"version https://git-lfs", "a Git LFS pointer (run 'git lfs pull')"),
    (b"PK\x03\x04", "a zip archive (a PyTorch checkpoint?)"),
    (b"\x89HDF", "an HDF5 file (Keras?)"),
    (b"\x80\x02", "a Python pickle (PyTorch checkpoint?)"),
    (b"\x80\x04", "a Python pickle"),
    (b"GGUF", "a GGUF file"),
    (b"<", "an HTML or XML page (a failed download?)"),
)


def load_onnx(path: Path, progress: Progress) -> Model:
    """Load the ONNX file ``path``. The result needs neither the file's folder nor its name any more.

    Raises:
        ModelError: not there, not ONNX, not valid, opset outside 7 to 24, an unknown operator domain, or
            external data that is missing, too short, or outside the model's folder.
    """
    try:
        return _load(path, progress)
    except UnicodeDecodeError as error:  # protobuf decodes text only when it is looked at
        raise _damaged(path) from error


def _damaged(path: Path) -> ModelError:
    return ModelError(f"{path} is damaged: a name in it is not UTF-8.", fix="Export or download it again.")


def _load(path: Path, progress: Progress) -> Model:
    proto = read_proto(path)
    name = path.name
    unify_default_domain(proto)
    opset = check_opset(proto, name)
    lower_newer_opset(proto, name)
    check_domains(proto, name)
    drop_unused_imports(proto)
    with ExternalFiles(path) as files:
        check_tensors(proto, files, name)
        densify(proto, files, name)
        sort_nodes(proto.graph, name)
        check_valid(proto, name)
        model = _to_ir(proto, name)
        attach(model, files)
        digest = files_sha256(path, files.paths(), progress)
        details = _details(proto, opset, files)
    _drop_initializer_inputs(model, proto.ir_version, progress)
    return Model(model, Source("onnx", str(path), digest, details))


def read_onnx(path: Path) -> Model:
    """The ONNX file ``path`` as it is: any opset, operator, type and attribute; weights are not read.

    For looking at it only: nodes are not checked against ONNX, because quantizers write models of old opsets
    with attributes of newer ones, which compilers accept. The source has no digest.

    Raises:
        ModelError: not there, not ONNX, values that nothing produces, or external data that cannot be mapped.
    """
    try:
        proto = read_proto(path)
        unify_default_domain(proto)
        with ExternalFiles(path) as files:
            check_tensors(proto, files, path.name)
            sort_nodes(proto.graph, path.name)
            model = _to_ir(proto, path.name)
            attach(model, files)
    except UnicodeDecodeError as error:
        raise _damaged(path) from error
    return Model(model, Source("onnx", str(path), ""))


def read_proto(path: Path) -> onnx.ModelProto:
    """Parse ``path`` without touching external data.

    Raises:
        ModelError: not there, a folder, not readable, empty, truncated, or not an ONNX model.
    """
    content = _read(path)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise ModelError(_not_onnx(path, content), fix="Export or download it again.") from error
    if not proto.ir_version or not proto.HasField("graph"):
        raise ModelError(_not_onnx(path, content), fix="Export or download it again.")
    return proto


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise ModelError(f"{path} is a folder, not an ONNX file.")
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"The model file {path} does not exist.") from error
    except OSError as error:
        raise ModelError(f"The model file {path} cannot be read: {error.strerror}.") from error
    if not content:
        raise ModelError(f"The model file {path} is empty.", fix="Export or download it again.")
    return content


def _not_onnx(path: Path, content: bytes) -> str:
    for magic, what in _MAGIC:
        if content.startswith(magic):
            return f"{path} is not an ONNX model: it looks like {what}."
    if content[4:8] == b"ORTM":
        return f"{path} is not an ONNX model: it looks like ONNX Runtime's own .ort format."
    return f"{path} is not an ONNX model, or it is truncated ({len(content)} bytes)."


def _to_ir(proto: onnx.ModelProto, name: str) -> ir.Model:
    try:
        return ir.from_proto(proto)
    except (ir.serde.SerdeError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        cause = error.__cause__ or error
        raise ModelError(f"{name} is not a valid ONNX model: {str(cause).splitlines()[0]}") from error


def _drop_initializer_inputs(model: ir.Model, ir_version: int, progress: Progress) -> None:
    """Make inputs that have an initializer plain constants.

    Up to IR version 3 every initializer had to be listed as an input. Since version 4 such an input is a
    default that a caller may override; compiling needs it constant, and says so.
    """
    initializers = model.graph.initializers
    overridable = [v for v in model.graph.inputs if v.name in initializers]
    if not overridable:
        return
    kept = [v for v in model.graph.inputs if v.name not in initializers]
    model.graph.inputs.clear()
    model.graph.inputs.extend(kept)
    if ir_version >= 4:
        names = ", ".join(str(v.name) for v in overridable[:3]) + (", …" if len(overridable) > 3 else "")
        progress.note(f"{len(overridable)} inputs with default values are compiled as constants: {names}")


def _details(proto: onnx.ModelProto, opset: int, files: ExternalFiles) -> dict[str, Any]:
    details: dict[str, Any] = {"opset": opset, "ir_version": proto.ir_version}
    producer = f"{proto.producer_name} {proto.producer_version}".strip()
    if producer:
        details["producer"] = producer
    if files.locations:
        details["external_data"] = sorted(files.locations)
    return details
