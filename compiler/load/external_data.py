"""External data: refuse paths that leave the model's folder, check sizes, map the files into memory.

Each data file is mapped once, whatever the number of tensors in it (one map per tensor would hold one file
descriptor each). Pages are read when a tensor is used, and can be dropped by the system again.
"""

from __future__ import annotations

import itertools
import mmap
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from edgeq.errors import ModelError


@dataclass(frozen=True)
class Extent:
    """Where a tensor's bytes lie."""

    location: str
    offset: int
    length: int


@dataclass
class _File:
    path: Path
    stream: BinaryIO
    size: int
    bytes: npt.NDArray[np.uint8] | None = field(default=None)

    def map(self) -> npt.NDArray[np.uint8]:
        if self.bytes is None:
            view = mmap.mmap(self.stream.fileno(), 0, access=mmap.ACCESS_READ)
            self.bytes = np.frombuffer(view, dtype=np.uint8)
        return self.bytes


class ExternalFiles:
    """The data files beside one model file. Closing it keeps what is mapped."""

    def __init__(self, model: Path) -> None:
        self._model = model.name
        # Made absolute but not resolved: a model file that is itself a link keeps its link's folder.
        self._folder = Path(os.path.abspath(model)).parent  # noqa: PTH100 - resolve() would follow the link
        self._files: dict[str, _File] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.stream.close()

    @property
    def locations(self) -> list[str]:
        """The locations used, as the model spells them."""
        return list(self._files)

    def paths(self) -> list[Path]:
        """The data files in the order of their locations, each once."""
        return list(dict.fromkeys(self._files[location].path for location in sorted(self._files)))

    def check(self, name: str, tensor: onnx.TensorProto, nbytes: int) -> Extent:
        """Where ``tensor`` lies, after checking that its file may be read and is long enough.

        Raises:
            ModelError: the location is missing, leaves the model's folder, does not exist or is too short.
        """
        extent = self._extent(name, tensor, nbytes)
        if nbytes == 0:
            return extent
        size = self._open(name, extent.location).size
        if extent.offset + nbytes > size:
            raise ModelError(
                f"{self._model}: tensor {name!r} needs {nbytes} bytes from offset {extent.offset} of its "
                f"external data file {extent.location!r}, which has only {size} bytes.",
                fix="Copy the data file again: it is truncated or belongs to another model.",
            )
        return extent

    def read(self, extent: Extent) -> npt.NDArray[np.uint8]:
        """The bytes of a checked extent, mapped, read-only."""
        if extent.length == 0:
            return np.empty(0, np.uint8)
        return self._files[extent.location].map()[extent.offset : extent.offset + extent.length]

    def _extent(self, name: str, tensor: onnx.TensorProto, nbytes: int) -> Extent:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if not location:
            raise ModelError(f"{self._model}: tensor {name!r} is external data without a location.")
        offset = self._number(name, entries, "offset", 0)
        length = self._number(name, entries, "length", nbytes)
        if length != nbytes:
            raise ModelError(
                f"{self._model}: tensor {name!r} needs {nbytes} bytes, but its external data entry says "
                f"{length}."
            )
        return Extent(location, offset, nbytes)

    def _number(self, name: str, entries: dict[str, str], key: str, default: int) -> int:
        text = entries.get(key) or str(default)
        if not text.isascii() or not text.isdigit():
            raise ModelError(f"{self._model}: tensor {name!r} has a bad external data {key} {text!r}.")
        return int(text)

    def _open(self, name: str, location: str) -> _File:
        if location not in self._files:
            path = self._inside(name, location)
            self._files[location] = self._open_path(name, location, path)
        return self._files[location]

    def _inside(self, name: str, location: str) -> Path:
        """The real path of ``location``; it must lie in the model's folder, links followed.

        Nothing is opened here. Both path flavours are judged, so that a model is refused or accepted
        alike on every system.
        """
        flavours = (PurePosixPath(location), PureWindowsPath(location))
        escapes = "\0" in location or any(p.is_absolute() or p.drive or ".." in p.parts for p in flavours)
        real = None if escapes else (self._folder / location).resolve()
        if real is None or not real.is_relative_to(self._folder.resolve()):
            raise ModelError(
                f"{self._model}: tensor {name!r} has its external data at {location!r}, outside the model's "
                "folder.",
                fix="Put the data file beside the model; other places are refused for safety.",
            )
        return real

    def _open_path(self, name: str, location: str, path: Path) -> _File:
        if not path.is_file():
            state = "is not a regular file" if path.exists() else "does not exist"
            raise ModelError(
                f"{self._model}: tensor {name!r} has its external data in {location!r}, which {state}.",
                fix=f"Copy the data file into {self._folder}.",
            )
        try:
            stream = path.open("rb")
        except OSError as error:
            raise ModelError(
                f"{self._model}: the external data file {location!r} of tensor {name!r} cannot be read: "
                f"{error.strerror}."
            ) from error
        return _File(path, stream, os.fstat(stream.fileno()).st_size)


def attach(model: ir.Model, files: ExternalFiles) -> None:
    """Replace the external tensors of ``model`` by tensors over the mapped files, so that it stands alone."""
    functions = list(model.functions.values())
    for graph in [*model.graphs(), *(inner for function in functions for inner in function.subgraphs())]:
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = mapped(value.const_value, files)
    nodes = [model.graph.all_nodes(), *(function.all_nodes() for function in functions)]
    for node in itertools.chain.from_iterable(nodes):
        _attach_attributes(node, files)


def _attach_attributes(node: ir.Node, files: ExternalFiles) -> None:
    for attribute in list(node.attributes.values()):
        if attribute.type == ir.AttributeType.TENSOR and isinstance(attribute.value, ir.ExternalTensor):
            tensor = mapped(attribute.value, files)
            node.attributes[attribute.name] = ir.AttrTensor(attribute.name, tensor)
        elif attribute.type == ir.AttributeType.TENSORS:
            some = [
                mapped(t, files) if isinstance(t, ir.ExternalTensor) else t for t in attribute.as_tensors()
            ]
            node.attributes[attribute.name] = ir.AttrTensors(attribute.name, some)


def mapped(tensor: ir.ExternalTensor, files: ExternalFiles) -> ir.TensorProtocol:
    """A tensor over the mapped bytes of ``tensor``; nothing is copied, 4-bit types stay packed."""
    extent = Extent(str(tensor.location), tensor.offset or 0, tensor.nbytes)
    raw = files.read(extent)
    shape = ir.Shape(tensor.shape)
    if tensor.dtype.bitwidth < 8:
        return ir.PackedTensor(raw, tensor.dtype, shape=shape, name=tensor.name)
    dtype = np.dtype(tensor.dtype.numpy())
    little = dtype.newbyteorder("<") if dtype.kind in "fiuc" else dtype
    array = raw.view(little).reshape(tensor.shape.numpy())
    return ir.Tensor(array, dtype=tensor.dtype, shape=shape, name=tensor.name)
