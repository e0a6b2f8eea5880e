"""Check that every tensor of a model holds as many values as its shape says, wherever they are stored."""

from __future__ import annotations

import math

import onnx
import onnx_ir as ir

from edgeq.compiler.load import protos
from edgeq.compiler.load.external_data import ExternalFiles
from edgeq.errors import ModelError


def check_tensors(proto: onnx.ModelProto, files: ExternalFiles, name: str) -> None:
    """Check all dense tensors; external ones against their files.

    Raises:
        ModelError: an unknown type, a negative dimension, or more or fewer values than the shape needs.
    """
    for tensor_name, tensor in protos.tensors(proto):
        check_tensor(tensor_name, tensor, files, name)


def check_tensor(tensor_name: str, tensor: onnx.TensorProto, files: ExternalFiles, name: str) -> None:
    """Check one dense tensor (see :func:`check_tensors`)."""
    where = f"{name}: tensor {tensor_name!r}"
    elements = _elements(tensor, where)
    dtype = _dtype(tensor, where)
    if dtype == ir.DataType.STRING:
        _expect(len(tensor.string_data), elements, "values", where)
        return
    nbytes = math.ceil(elements * dtype.bitwidth / 8)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        files.check(tensor_name, tensor, nbytes)
    elif tensor.HasField("raw_data"):
        _expect(len(tensor.raw_data), nbytes, "bytes", where)
    else:
        field = onnx.helper.tensor_dtype_to_field(tensor.data_type)
        _expect(len(getattr(tensor, field)), _entries(dtype, elements), "values", where)


def _dtype(tensor: onnx.TensorProto, where: str) -> ir.DataType:
    try:
        dtype = ir.DataType(tensor.data_type)
    except ValueError:
        dtype = ir.DataType.UNDEFINED
    if dtype == ir.DataType.UNDEFINED:
        raise ModelError(f"{where} has the unknown data type {tensor.data_type}.")
    return dtype


def _elements(tensor: onnx.TensorProto, where: str) -> int:
    if any(dim < 0 for dim in tensor.dims):
        raise ModelError(f"{where} has a negative dimension in its shape {list(tensor.dims)}.")
    return math.prod(tensor.dims)


def _entries(dtype: ir.DataType, elements: int) -> int:
    """Entries in the typed field: complex numbers take two, 4-bit and 2-bit ones are packed in bytes."""
    if dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128):
        return 2 * elements
    return math.ceil(elements * dtype.bitwidth / 8) if dtype.bitwidth < 8 else elements


def _expect(found: int, needed: int, unit: str, where: str) -> None:
    if found != needed:
        raise ModelError(f"{where} needs {needed} {unit} for its shape but holds {found}.")
