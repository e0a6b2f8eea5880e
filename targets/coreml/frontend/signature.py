"""How the package's inputs and outputs stand for the ONNX model's: names, dtypes and ranks differ."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

# Words of MIL's own text form: coremltools renames values that are called so.
_RESERVED = frozenset(
    {
        "any", "bool", "program", "func", "tensor", "list", "dict", "tuple", "true", "false", "string",
        "state", "bf16", "fp16", "fp32", "fp64", "int8", "int16", "int32", "int64", "uint8", "uint16",
        "uint32", "uint64",
    }
)  # fmt: skip


@dataclass(frozen=True)
class ImagePort:
    """The package takes pixels of 0 to 255 and computes ``scale * pixel + bias`` (per channel) itself."""

    scale: float
    bias: tuple[float, ...] = ()


@dataclass(frozen=True)
class Port:
    """One input or output.

    ``name``, ``dtype`` (numpy's name) and ``shape`` are the ONNX model's; ``package_name`` is what the
    package calls it. The package has int32 for integers and booleans, and rank 1 for scalars.
    ``image`` is set where the package takes an image.
    """

    name: str
    package_name: str
    dtype: str
    shape: tuple[int | str | None, ...]
    image: ImagePort | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        content = {**asdict(self), "shape": list(self.shape)}
        if self.image is None:
            del content["image"]
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Port:
        """The port that :meth:`to_json` wrote."""
        image = content.get("image")
        return cls(
            content["name"],
            content["package_name"],
            content["dtype"],
            tuple(content["shape"]),
            None if image is None else ImagePort(image["scale"], tuple(image["bias"])),
        )


@dataclass(frozen=True)
class Signature:
    """All ports, in the ONNX model's order."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        return {
            "inputs": [port.to_json() for port in self.inputs],
            "outputs": [port.to_json() for port in self.outputs],
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Signature:
        """The signature that :meth:`to_json` wrote."""
        return cls(
            tuple(Port.from_json(port) for port in content["inputs"]),
            tuple(Port.from_json(port) for port in content["outputs"]),
        )


def package_names(names: Iterable[str]) -> dict[str, str]:
    """ONNX name → identifier that Core ML takes, all different."""
    taken: set[str] = set()
    result: dict[str, str] = {}
    for name in names:
        clean = re.sub(r"[^A-Za-z0-9_]", "_", name)
        if not clean or clean[0].isdigit():
            clean = f"_{clean}"
        if clean in _RESERVED:
            clean = f"{clean}_"
        candidate, count = clean, 1
        while candidate in taken:
            candidate = f"{clean}_{count}"
            count += 1
        taken.add(candidate)
        result[name] = candidate
    return result
