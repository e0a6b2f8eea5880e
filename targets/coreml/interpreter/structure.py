"""A MIL program as plain data: what ``program.read_package`` returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edgeq.targets.coreml.interpreter.call import TensorType

FeatureKind = Literal["array", "image", "label", "probabilities"]


@dataclass(frozen=True, eq=False)
class Value:
    """A constant of the program.

    :meth:`decode` gives a numpy array in the declared dtype (int4 as int8, uint1 to uint6 as uint8), a str
    for a scalar string, or a list of str. ``blob`` says whether it lies in the weights file.
    """

    type: TensorType
    decode: Callable[[], Any]
    blob: bool = False


@dataclass(frozen=True)
class Result:
    """An output of an operation, or an input of a function or block."""

    name: str
    type: TensorType


@dataclass(frozen=True)
class Operation:
    """One operation. ``inputs``: parameter → names of values or constants (several only for lists)."""

    type: str
    name: str
    inputs: Mapping[str, tuple[str | Value, ...]]
    outputs: tuple[Result, ...]
    attributes: Mapping[str, Value] = field(default_factory=dict)
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Block:
    """Operations in the order in which they run; ``outputs`` are names."""

    inputs: tuple[Result, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]

    def walk(self) -> Iterator[Operation]:
        """All operations, those of nested blocks included."""
        for operation in self.operations:
            yield operation
            for block in operation.blocks:
                yield from block.walk()


@dataclass(frozen=True)
class Function:
    """A function; ``opset`` is the iOS version of its operations, 15 to 18."""

    inputs: tuple[Result, ...]
    block: Block
    opset: int


@dataclass(frozen=True)
class Feature:
    """An input or output as the package describes it to its users.

    ``shape`` is the default shape, ``ranges`` the lowest and highest size of each dimension (None: no upper
    bound), ``shapes`` all allowed shapes when they are enumerated. An image is
    ``[1, channels, height, width]`` with values 0 to 255 in the order of
    ``color_layout`` (``RGB``, ``BGR``, ``GRAYSCALE`` …). Classifiers give a label and all probabilities.
    """

    name: str
    kind: FeatureKind
    dtype: str
    shape: tuple[int, ...]
    ranges: tuple[tuple[int, int | None], ...] | None = None
    shapes: tuple[tuple[int, ...], ...] | None = None
    color_layout: str | None = None
    optional: bool = False
    default: float | int | None = None


@dataclass(frozen=True)
class MilProgram:
    """A written package: its program, its interface and its metadata."""

    specification_version: int
    functions: Mapping[str, Function]
    entry: str
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    metadata: Mapping[str, str]

    @property
    def main(self) -> Function:
        """The function that a prediction runs."""
        return self.functions[self.entry]
