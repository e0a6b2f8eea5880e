"""Schemes ``palettize-4`` and ``palettize-6``: planned weights of a written package become lookup tables.

coremltools' ``palettize_weights`` would read the package into a program, cluster small weights by sampling
and write it with its default passes again. Here the constants alone are replaced in the written spec, by the
best palette, so every other part of the program stays what was written first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model
from edgeq.compiler.plan import Plan
from edgeq.errors import TargetError
from edgeq.targets.coreml.interpreter.values import ValueReader
from edgeq.targets.coreml.options import CoreMLOptions
from edgeq.targets.coreml.package.blobs import BlobWriter, move_blobs
from edgeq.targets.coreml.package.clustering import find_palette
from edgeq.targets.coreml.package.folder import (
    model_folder,
    read_spec,
    unfinished_package,
    weights_folder,
    write_spec,
)
from edgeq.targets.coreml.package.lookup_tables import LookupTables, lookup_operation

Message = Any

_BITS: Mapping[str, int] = {"pal4": 4, "pal6": 6}
_IOS: Mapping[str, int] = {"CoreML6": 16, "CoreML7": 17, "CoreML8": 18}
# MIL parameter → axis of its output channels, which a group of channels is cut from
_CHANNELS: Mapping[tuple[str, str], int] = {
    ("conv", "weight"): 0,
    ("linear", "weight"): 0,
    ("conv_transpose", "weight"): 1,
    ("matmul", "y"): -1,
    ("gather", "x"): 0,
}


@dataclass(frozen=True)
class _Constant:
    """A float constant of the package: where its operation stands, and what it holds."""

    block: Message
    index: int
    array: Array
    ios: int

    @property
    def operation(self) -> Message:
        return self.block.operations[self.index]


def palettize(
    path: Path, model: Model, plan: Plan, options: CoreMLOptions
) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Replace the planned weights of the package at ``path`` by lookup tables.

    Returns the float32 numbers that stand for each ONNX initializer of ``model`` now, and notes: what was
    palettized how well, and what was not and why. The same package gives the same bytes, and palettizing the
    returned weights again gives them again.

    Raises:
        TargetError: the package cannot be read or written.
    """
    spec = read_spec(path)
    constants = _by_content(spec, ValueReader(model_folder(path)))
    run = _Run(spec, constants, options.palette_group)
    for name, quantized in plan.weights.items():
        if quantized.dtype in _BITS:
            run.weight(name, _initializer(model, name), _BITS[quantized.dtype])
    with unfinished_package(path) as folder:
        writer = BlobWriter(weights_folder(folder))
        move_blobs(spec, model_folder(path), writer, without=run.replaced.keys())
        run.write(writer)
        write_spec(folder, spec)
    return run.weights, tuple(run.notes())


class _Run:
    """Finds the palette of one weight after the other. Weights with the same content share a constant.

    ``replaced``: name of a constant → the constant and its tables. ``weights``: what initializers are now.
    """

    def __init__(self, spec: Message, constants: Mapping[str, _Constant], group: int | None) -> None:
        self.weights: dict[str, Array] = {}
        self.replaced: dict[str, tuple[_Constant, LookupTables]] = {}
        self._constants = constants
        self._group = group
        self._readers = _readers(spec)
        self._sqnr: dict[str, float] = {}
        self._ungrouped: list[str] = []
        self._missing: list[str] = []

    def weight(self, name: str, weight: Array, bits: int) -> None:
        found = _find(weight, self._constants)
        if found is None:
            self._missing.append(name)
            return
        layout, constant = found
        output = constant.operation.outputs[0].name
        if output not in self.replaced:
            self.replaced[output] = constant, self._tables(name, constant, bits)
        decoded = layout.restore(self.replaced[output][1].decoded().astype(np.float32))
        self.weights[name] = decoded
        self._sqnr[name] = _decibels(weight, decoded)

    def write(self, writer: BlobWriter) -> None:
        """Put the tables into the spec, and their numbers into the weights file."""
        for constant, tables in self.replaced.values():
            dtype = constant.array.dtype.name
            operation = lookup_operation(constant.operation, dtype, tables, writer, ios=constant.ios)
            constant.operation.CopyFrom(operation)

    def _tables(self, name: str, constant: _Constant, bits: int) -> LookupTables:
        half = constant.array.astype(np.float16)
        axis = self._group_axis(name, constant) if self._group else None
        return LookupTables([find_palette(part, bits) for part in _groups(half, axis, self._group)], axis)

    def _group_axis(self, name: str, constant: _Constant) -> int | None:
        """The axis to cut groups of channels from, None (and a note) when they do not fit."""
        readers = self._readers.get(constant.operation.outputs[0].name, ())
        axes = {_CHANNELS.get(reader) for reader in readers}
        axis = axes.pop() if len(axes) == 1 else None
        if axis is None or self._group is None or constant.array.shape[axis] % self._group:
            self._ungrouped.append(name)
            return None
        return axis % constant.array.ndim

    def notes(self) -> Iterator[str]:
        if self._sqnr:
            worst = min(self._sqnr, key=self._sqnr.__getitem__)
            count = "1 weight" if len(self._sqnr) == 1 else f"{len(self._sqnr)} weights"
            yield (
                f"{count} became lookup tables; the farthest from its float numbers is "
                f"{worst!r} with {self._sqnr[worst]:.1f} dB."
            )
        for name in self._missing:
            yield f"The weight {name!r} has no lookup table: it was folded into another constant."
        for name in self._ungrouped:
            yield (
                f"The weight {name!r} has one lookup table: its channels cannot be cut into groups of "
                f"{self._group}."
            )


# --- finding the weights in the package ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """How the package stores an ONNX weight: as it is, or with its two axes swapped."""

    shape: tuple[int, ...]
    transposed: bool

    def restore(self, stored: Array) -> Array:
        return np.ascontiguousarray(stored.T) if self.transposed else stored.reshape(self.shape)


def _find(weight: Array, constants: Mapping[str, _Constant]) -> tuple[_Layout, _Constant] | None:
    """The constant that holds ``weight``; None when the program computes with something made of it."""
    for transposed in (False, True)[: 1 + (weight.ndim == 2)]:
        stored = weight.T if transposed else weight
        for dtype in (np.float16, np.float32):
            found = constants.get(_digest(stored.astype(dtype)))
            if found is not None:
                return _Layout(weight.shape, transposed), found
    return None


def _by_content(spec: Message, values: ValueReader) -> dict[str, _Constant]:
    """Digest of the numbers → float constant; float16 and float32 ones differ in their bytes."""
    found: dict[str, _Constant] = {}
    for opset, block in _blocks(spec):
        for index, operation in enumerate(block.operations):
            value = operation.attributes["val"] if operation.type == "const" else None
            if value is None or value.WhichOneof("value") != "blobFileValue":
                continue
            read = values.read(value, f"the constant {operation.outputs[0].name!r}")
            if read.type.dtype in ("float16", "float32"):
                array = read.decode()
                found.setdefault(_digest(array), _Constant(block, index, array, _IOS[opset]))
    return found


def _digest(array: Array) -> str:
    return hashlib.blake2b(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).hexdigest()


def _blocks(spec: Message) -> Iterator[tuple[str, Message]]:
    for name in sorted(spec.mlProgram.functions):
        yield from spec.mlProgram.functions[name].block_specializations.items()


def _readers(spec: Message) -> dict[str, list[tuple[str, str]]]:
    """Value → (operation type, parameter) of everything that reads it."""
    found: dict[str, list[tuple[str, str]]] = {}
    for _, block in _blocks(spec):
        for operation in block.operations:
            for parameter, argument in operation.inputs.items():
                for binding in argument.arguments:
                    found.setdefault(binding.name, []).append((operation.type, parameter))
    return found


def _initializer(model: Model, name: str) -> Array:
    value = model.ir.graph.initializers[name].const_value
    if value is None:
        raise TargetError(f"Core ML: the weight {name!r} has no numbers.")
    return np.asarray(value.numpy())


# --- groups of channels ---------------------------------------------------------------------------------


def _groups(weights: npt.NDArray[np.float16], axis: int | None, group: int | None) -> list[Array]:
    if axis is None or group is None:
        return [weights]
    return np.split(weights, weights.shape[axis] // group, axis)


def _decibels(weights: Array, decoded: Array) -> float:
    """Signal-to-quantization-noise ratio in dB."""
    exact = weights.astype(np.float64)
    noise = float(np.sum((exact - decoded) ** 2))
    return float("inf") if noise == 0 else 10 * float(np.log10(np.sum(exact**2) / noise))
