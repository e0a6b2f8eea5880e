"""Runs a compiled package with PyTorch alone: neither Neural Compressor nor PyTorch's compiler is loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Array, Arrays
from edgeq.errors import DataError, ModelError, TargetError
from edgeq.machine import usable_cores
from edgeq.targets.base import Runner
from edgeq.targets.inputs import check_threads, sizes_text
from edgeq.targets.loaded import LoadedRunner
from edgeq.targets.neural_compressor.cpu import refuse_missing
from edgeq.targets.neural_compressor.files import MODEL
from edgeq.targets.neural_compressor.settings import Interface, Settings


def open_runner(folder: Path, *, threads: int | None = None) -> Runner:
    """The artefact in ``folder``: a package of machine code, or a folder of INT4 weights.

    Raises:
        UsageError: ``threads`` is not positive.
        ModelError: the artefact is damaged.
        TargetError: this machine cannot run it.
    """
    if (folder / MODEL).is_file():
        return PackageRunner(folder, threads=threads)
    from edgeq.targets.neural_compressor.weight_only.runner import WeightOnlyRunner

    return WeightOnlyRunner(folder, threads=threads)


class PackageRunner(LoadedRunner):
    """One loaded package."""

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        """Load the package in ``folder``; it computes with ``threads`` (None: every usable CPU).

        Raises:
            UsageError: ``threads`` is not positive.
            ModelError: the artefact is damaged.
            TargetError: this machine cannot run it.
        """
        check_threads(threads)
        interface = Settings.read(folder).interface
        super().__init__(
            _load(folder / MODEL, interface),
            [port.spec for port in interface.inputs],
            [port.spec for port in interface.outputs],
        )
        self._threads = threads or usable_cores()
        self._interface = interface

    def _run(self, inputs: Arrays) -> dict[str, Array]:
        check_sizes(self._interface, inputs)
        check_rows(self._interface, inputs)
        tensors = [tensor(inputs[spec.name]) for spec in self._inputs]
        try:
            with computing_threads(self._threads):
                results = self._model.boxed_run(tensors)
        except RuntimeError as error:
            raise TargetError(
                f"The package fails on the inputs {sizes_text(inputs)}: {first_line(error)}"
            ) from error
        # A result may be a view of an input or of a constant.
        return {
            spec.name: np.array(result.numpy()) for spec, result in zip(self._outputs, results, strict=True)
        }


def _load(path: Path, interface: Interface) -> Any:
    """The package at ``path``, after this machine was found able to run it."""
    import torch

    refuse_missing(interface.cpu)
    if torch.__version__ != interface.torch:
        raise TargetError(
            f"The package was compiled with PyTorch {interface.torch}, and this is {torch.__version__}.",
            fix=f"Install torch=={interface.torch.split('+')[0]}, or compile the model again.",
        )
    try:
        return torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
    except RuntimeError as error:
        raise ModelError(
            f"{path} cannot be loaded: {first_line(error)}", fix="Compile the model again."
        ) from error


def check_sizes(interface: Interface, inputs: Arrays) -> None:
    """Refuse sizes that the code is not made for: it would read beyond its memory without a word.

    Raises:
        DataError: a dynamic dimension is out of its range, or inputs disagree about it.
    """
    seen: dict[str, tuple[int, str]] = {}
    for port in interface.inputs:
        for axis, (wanted, size) in enumerate(zip(port.shape, inputs[port.name].shape, strict=True)):
            if isinstance(wanted, int):
                continue
            name = wanted or f"{port.name}:{axis}"
            _check_range(interface, name, size, port.name)
            before, other = seen.setdefault(name, (size, port.name))
            if before != size:
                raise DataError(
                    f"The dimension {name!r} is {before} in the input {other!r} and {size} in {port.name!r}.",
                    fix="Give inputs of one size.",
                )


def check_rows(interface: Interface, inputs: Arrays) -> None:
    """Refuse indices beyond a table: the code would throw in a thread, which ends the process.

    Raises:
        DataError: naming the input and the value.
    """
    for name, rows in interface.rows.items():
        array = inputs[name]
        if not array.size or (array.min() >= 0 and array.max() < rows):
            continue
        wrong = array.min() if array.min() < 0 else array.max()
        raise DataError(
            f"The input {name!r} has the value {wrong}; the model's table has rows 0 to {rows - 1}.",
            fix="Use the tokenizer that the model was trained with.",
        )


def _check_range(interface: Interface, name: str, size: int, where: str) -> None:
    smallest, largest = interface.dimensions.get(name, (0, None))
    if size < smallest or (largest is not None and size > largest):
        limits = f"{smallest} to {largest}" if largest is not None else f"{smallest} or more"
        wanted = str(smallest) if smallest == largest else limits
        raise DataError(
            f"The dimension {name!r} is {size} in the input {where!r}; the package is compiled for {wanted}.",
            fix="Reshape the data.",
        )


def tensor(array: Array) -> Any:
    """``array`` as a tensor without gaps; it is copied where PyTorch could not share it."""
    import torch

    plain = np.require(array, array.dtype.newbyteorder("="), ["C", "A", "W"])
    return torch.from_numpy(plain)


@contextlib.contextmanager
def computing_threads(count: int) -> Iterator[None]:
    """PyTorch's number of threads is the process's: it is put back."""
    import torch

    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def first_line(error: Exception) -> str:
    """What a library's exception says, as one sentence."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line if line.endswith(".") else line + "."
