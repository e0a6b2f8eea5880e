"""Sparse tensors to dense ones: as initializers and in Constant nodes (ONNX spec: SparseTensorProto, COO)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from edgeq.compiler.load import protos
from edgeq.compiler.load.external_data import ExternalFiles, mapped
from edgeq.compiler.load.tensors import check_tensor
from edgeq.errors import ModelError

# A sparse tensor of a few bytes may declare any dense shape: protobuf's own limit bounds it.
_MAX_DENSE_BYTES = 1 << 31

Reader = Callable[[onnx.TensorProto, str], npt.NDArray[np.generic]]


def densify(proto: onnx.ModelProto, files: ExternalFiles, name: str) -> None:
    """Replace every sparse initializer and sparse Constant of ``proto`` by a dense one.

    Raises:
        ModelError: indices outside the shape, a bad layout, or a dense size over 2 GiB.
    """
    read = _reader(files, name)
    for graph in protos.all_graphs(proto):
        for sparse in graph.sparse_initializer:
            graph.initializer.append(_dense(sparse, sparse.values.name, read, name))
        del graph.sparse_initializer[:]
    for node in protos.nodes(proto):
        if node.op_type == "Constant" and not node.domain:
            _densify_constant(node, read, name)


def _densify_constant(node: onnx.NodeProto, read: Reader, name: str) -> None:
    for attribute in node.attribute:
        if attribute.name == "sparse_value" and attribute.HasField("sparse_tensor"):
            dense = _dense(attribute.sparse_tensor, protos.attribute_name(node, attribute), read, name)
            attribute.Clear()
            attribute.CopyFrom(onnx.helper.make_attribute("value", dense))


def _reader(files: ExternalFiles, name: str) -> Reader:
    def read(tensor: onnx.TensorProto, label: str) -> npt.NDArray[np.generic]:
        check_tensor(label, tensor, files, name)
        part = ir.serde.deserialize_tensor(tensor)
        return mapped(part, files).numpy() if isinstance(part, ir.ExternalTensor) else part.numpy()

    return read


def _dense(sparse: onnx.SparseTensorProto, label: str, read: Reader, name: str) -> onnx.TensorProto:
    where = f"{name}: sparse tensor {label!r}"
    shape = tuple(sparse.dims)
    if not shape or any(dim < 0 for dim in shape):
        raise ModelError(f"{where} has the bad shape {list(shape)}.")
    values = read(sparse.values, label).reshape(-1)
    if math.prod(shape) * max(values.itemsize, 1) > _MAX_DENSE_BYTES:
        raise ModelError(f"{where} of shape {list(shape)} would be larger than 2 GiB when stored densely.")
    flat = _flat_indices(read(sparse.indices, label + " indices"), shape, values.size, where)
    dense = np.zeros(math.prod(shape), values.dtype)
    dense[flat] = values
    return numpy_helper.from_array(dense.reshape(shape), sparse.values.name)


def _flat_indices(
    indices: npt.NDArray[np.generic], shape: tuple[int, ...], count: int, where: str
) -> npt.NDArray[np.int64]:
    """Indices [NNZ] are linear, [NNZ, rank] are one coordinate per dimension."""
    if indices.dtype != np.int64 or indices.shape not in ((count,), (count, len(shape))):
        raise ModelError(f"{where} has indices of shape {list(indices.shape)} for {count} values.")
    linear = indices.ndim == 1
    limits = np.array([math.prod(shape)] if linear else shape)
    columns = indices.astype(np.int64).reshape(count, -1 if count else len(limits))
    if np.any(columns < 0) or np.any(columns >= limits):
        raise ModelError(f"{where} has an index outside its shape {list(shape)}.")
    if linear:
        return columns.reshape(-1)
    return np.asarray(np.ravel_multi_index(tuple(columns.T), shape), dtype=np.int64)
