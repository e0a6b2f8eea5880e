"""SHA-256 of what was loaded, in constant memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgeq.progress import Progress

_CHUNK = 1 << 20


def files_sha256(model: Path, data: Sequence[Path], progress: Progress) -> str:
    """SHA-256 of the model file followed by its data files, as ``cat model data | sha256sum`` prints."""
    files = [model, *data]
    total = sum(file.stat().st_size for file in files)
    digest = hashlib.sha256()
    with progress.task(f"Reading {model.name}", total) as advance:
        for file in files:
            with file.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
                    advance(len(chunk))
    return digest.hexdigest()


def graph_sha256(model: ir.Model) -> str:
    """SHA-256 of a graph and its weights: for models that come from no single file.

    The graph is hashed as protobuf without its initializers, then each initializer's name, type, shape and
    little-endian bytes in the order of the names.
    """
    skeleton = model.clone()
    initializers = skeleton.graph.initializers
    weights = [(name, initializers[name].const_value) for name in sorted(initializers)]
    for name, _ in weights:
        initializers.pop(name)
    digest = hashlib.sha256(ir.to_proto(skeleton).SerializeToString(deterministic=True))
    for name, tensor in weights:
        if tensor is not None:
            digest.update(f"{name}\0{tensor.dtype.name}\0{tensor.shape}\0".encode())
            digest.update(_little_endian(tensor))
    return digest.hexdigest()


def _little_endian(tensor: ir.TensorProtocol) -> memoryview | bytes:
    array = tensor.numpy()
    if array.dtype.kind not in "fiub" or array.nbytes != tensor.nbytes:
        return tensor.tobytes()
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return plain.reshape(-1).view(np.uint8).data
