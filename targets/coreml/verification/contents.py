"""What a written package really holds: operations, stored weights, roundings, interface."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.targets.coreml.interpreter.program import read_package
from edgeq.targets.coreml.interpreter.structure import Feature, MilProgram, Operation, Value
from edgeq.targets.coreml.verification.stored import parameter, storage, value_bytes

# The smallest normal float16: below it scales lose digits, and the Neural Engine may flush them to zero.
SMALLEST_NORMAL_HALF = float(np.finfo(np.float16).smallest_normal)

_ROUNDINGS = ("quantize", "dequantize")


@dataclass(frozen=True)
class Stored:
    """Weights of one storage format: how many tensors, and their bytes with scales and lookup tables."""

    tensors: int
    bytes: int


@dataclass(frozen=True)
class SmallScale:
    """An operation whose float16 scale is subnormal."""

    operation: str
    scale: float


@dataclass(frozen=True)
class Contents:
    """The package in figures. ``weights``: ``float16``, ``int8``, ``uint4``, ``lut-4`` … → :class:`Stored`.

    ``roundings``: ``quantize`` or ``dequantize`` → dtype → number. ``ios`` is the lowest that loads it.
    """

    ios: int
    specification_version: int
    operations: Mapping[str, int]
    weights: Mapping[str, Stored]
    roundings: Mapping[str, Mapping[str, int]]
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    small_scales: tuple[SmallScale, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        return {
            "ios": self.ios,
            "specification_version": self.specification_version,
            "operations": dict(self.operations),
            "weights": {name: {"tensors": w.tensors, "bytes": w.bytes} for name, w in self.weights.items()},
            "roundings": {name: dict(counts) for name, counts in self.roundings.items()},
            "inputs": [_feature_json(item) for item in self.inputs],
            "outputs": [_feature_json(item) for item in self.outputs],
            "small_scales": [{"operation": s.operation, "scale": s.scale} for s in self.small_scales],
        }

    def rows(self) -> list[tuple[str, str]]:
        """What and how much, for a table."""
        return [
            (
                "Deployment target",
                f"iOS{self.ios} / macOS{self.ios - 3} (specification {self.specification_version})",
            ),
            ("Operations", str(sum(self.operations.values()))),
            *((f"Weights in {name}", _stored_text(stored)) for name, stored in self.weights.items()),
            *_rounding_rows(self.roundings),
            *((f"Input {item.name}", _feature_text(item)) for item in self.inputs),
            *((f"Output {item.name}", _feature_text(item)) for item in self.outputs),
            *((f"Subnormal scale of {s.operation}", f"{s.scale:.3g}") for s in self.small_scales),
        ]


def package_contents(path: Path) -> Contents:
    """Read the package at ``path``; raises ModelError when it is malformed."""
    return contents_of(read_package(path))


def contents_of(program: MilProgram) -> Contents:
    """The figures of a package that is already read."""
    operations = list(program.main.block.walk())
    counts = Counter(o.type for o in operations if o.type != "const")
    return Contents(
        program.main.opset,
        program.specification_version,
        dict(sorted(counts.items())),
        _weights(operations),
        _roundings(operations),
        program.inputs,
        program.outputs,
        tuple(_small_scales(operations)),
    )


# --- weights ------------------------------------------------------------------------------------------------


def _weights(operations: Iterable[Operation]) -> dict[str, Stored]:
    tensors: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for operation in operations:
        name = storage(operation)
        if name is not None:
            tensors[name] += 1
            sizes[name] += sum(value_bytes(value.type) for value in _constants(operation))
    return {name: Stored(tensors[name], sizes[name]) for name in sorted(tensors)}


def _constants(operation: Operation) -> Iterator[Value]:
    """All constant parameters, those that are attributes as well."""
    found = {name: (value,) for name, value in operation.attributes.items()} | dict(operation.inputs)
    for bound in found.values():
        yield from (value for value in bound if isinstance(value, Value) and value.type.dtype != "string")


# --- roundings ----------------------------------------------------------------------------------------------


def _roundings(operations: Iterable[Operation]) -> dict[str, dict[str, int]]:
    operations = list(operations)
    types = {result.name: result.type for o in operations for result in o.outputs}
    found: dict[str, Counter[str]] = {name: Counter() for name in _ROUNDINGS}
    for operation in operations:
        if operation.type == "quantize":
            found["quantize"][operation.outputs[0].type.dtype] += 1
        elif operation.type == "dequantize":
            (source,) = operation.inputs["input"]
            type_ = source.type if isinstance(source, Value) else types.get(source)
            found["dequantize"][type_.dtype if type_ else "int8"] += 1
    return {name: dict(sorted(counts.items())) for name, counts in found.items() if counts}


def _small_scales(operations: Iterable[Operation]) -> Iterator[SmallScale]:
    operations = list(operations)
    constants = {o.outputs[0].name: o.attributes["val"] for o in operations if o.type == "const"}
    for operation in operations:
        if operation.type in _ROUNDINGS or operation.type.startswith("constexpr_"):
            value = parameter(operation, "scale") or _bound(operation, constants)
            if value is not None and value.type.dtype == "float16":
                smallest = float(np.min(np.abs(value.decode().astype(np.float32))))
                if smallest < SMALLEST_NORMAL_HALF:
                    yield SmallScale(operation.name, smallest)


def _bound(operation: Operation, constants: Mapping[str, Value]) -> Value | None:
    """The scale as the name of a ``const`` operation."""
    (bound,) = operation.inputs.get("scale", (None,))
    return constants.get(bound) if isinstance(bound, str) else None


# --- words --------------------------------------------------------------------------------------------------


def _feature_json(item: Feature) -> dict[str, Any]:
    found: dict[str, Any] = {"name": item.name, "dtype": item.dtype, "shape": list(item.shape)}
    if item.ranges is not None:
        found["ranges"] = [list(bounds) for bounds in item.ranges]
    if item.shapes is not None:
        found["shapes"] = [list(shape) for shape in item.shapes]
    if item.color_layout is not None:
        found["image"] = item.color_layout
    return found


def _feature_text(item: Feature) -> str:
    kind = item.dtype if item.color_layout is None else f"{item.color_layout} image"
    if item.shapes is not None:
        return f"{kind} " + " or ".join(_sizes(shape) for shape in item.shapes)
    if item.ranges is not None:
        return f"{kind} " + _sizes(
            low if low == high else f"{low}..{high or ''}" for low, high in item.ranges
        )
    return f"{kind} {_sizes(item.shape)}"


def _sizes(sizes: Iterable[object]) -> str:
    return "[" + ", ".join(str(size) for size in sizes) + "]"


def _stored_text(stored: Stored) -> str:
    tensors = "1 tensor" if stored.tensors == 1 else f"{stored.tensors} tensors"
    return f"{tensors}, {stored.bytes:,} bytes"


def _rounding_rows(roundings: Mapping[str, Mapping[str, int]]) -> Iterator[tuple[str, str]]:
    for name, counts in roundings.items():
        yield f"{name} operations", ", ".join(f"{number} {dtype}" for dtype, number in counts.items())
