"""Which kernel computes each planned node, found in the compiler's final graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from edgeq.errors import ModelError
from edgeq.targets.neural_compressor.files import NODES
from edgeq.targets.neural_compressor.names import op_type

if TYPE_CHECKING:
    from pathlib import Path

    from torch.export import ExportedProgram
    from torch.fx import Node

# oneDNN's INT8 kernels, as the final graph calls them before and after other nodes were fused into them.
_LAYERS = ("qconv", "qlinear")
# What it makes of ops between them that only move or compare INT8 values.
_PASSING = ("qmaxpool2d", "qcat", "qreshape")
_ROUNDING = ("quantize", "choose_qparams")
# Ops that hold the arithmetic of a layer.
_ARITHMETIC = frozenset(
    {"conv1d", "conv2d", "conv3d", "convolution", "linear", "addmm", "mm", "bmm", "matmul"}
)


@dataclass(frozen=True)
class Call:
    """One node of the final graph: what it calls, and the nodes of the program whose results it computes.

    ``dtype``: of its (first) result.
    """

    op: str
    origins: tuple[str, ...]
    dtype: str = ""

    @property
    def is_layer(self) -> bool:
        return self.op.removeprefix("onednn.").startswith(_LAYERS)

    @property
    def is_int8(self) -> bool:
        return self.is_layer or self.op.startswith(_PASSING)

    @property
    def is_arithmetic(self) -> bool:
        return any(word in self.op for word in ("mm", "linear", "convolution", "attention"))

    @property
    def is_int8_lookup(self) -> bool:
        return "embedding" in self.op and self.dtype == "int8"

    @property
    def is_rounding(self) -> bool:
        return any(word in self.op for word in _ROUNDING)


class Placed(BaseModel):
    """``actual``: ``int8``, ``fused`` (in another node's INT8 kernel), ``stored`` or ``float``.

    ``stored``: float values of rows that were read in INT8. ``kernel``: what the final graph calls.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    actual: str
    kernel: str


class Placement(BaseModel):
    """Name of a planned node → what computes it (nothing where it is not here); ``layers``: INT8 kernels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: int
    nodes: dict[str, Placed]

    def write(self, folder: Path) -> str:
        """Write it into the artefact's folder; returns the file's name."""
        text = self.model_dump_json(indent=1) + "\n"
        (folder / NODES).write_text(text, encoding="utf-8", newline="\n")
        return NODES

    @classmethod
    def read(cls, folder: Path) -> Placement:
        """What :meth:`write` wrote; raises ModelError when it is missing or damaged."""
        path = folder / NODES
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(
                f"{path} cannot be read ({type(error).__name__}).", fix="Compile the model again."
            ) from error


def place(program: ExportedProgram, calls: Sequence[Call], names: Mapping[str, str]) -> Placement:
    """What computes each node; ``names``: node of the module that was exported → planned node."""
    found = _Places(program, calls).found
    planned = {node.name: name for node in program.graph.nodes if (name := names.get(_source(node)))}
    nodes = {planned[name]: placed for name, placed in found.items() if name in planned}
    return Placement(layers=sum(call.is_layer for call in calls), nodes=dict(sorted(nodes.items())))


def _source(node: Node) -> str:
    """The name that ``node`` had before the module was exported."""
    before = node.meta.get("from_node")
    return str(before[0].name) if before else ""


class _Places:
    """Node of the program → what computes it."""

    def __init__(self, program: ExportedProgram, calls: Sequence[Call]) -> None:
        self._nodes = {node.name: node for node in program.graph.nodes}
        self._ends = {name for call in calls for name in call.origins}
        self._rows = {name for call in calls if call.is_int8_lookup for name in call.origins}
        self.found: dict[str, Placed] = {}
        for call in calls:
            if call.is_int8:
                self._int8(call)
        # Of the calls that one node became, the one that holds its arithmetic tells more.
        for call in sorted(calls, key=lambda call: not call.is_arithmetic):
            if not call.is_rounding and not call.is_int8:
                self._float(call)

    def _int8(self, call: Call) -> None:
        """A kernel computes what leads to its result: up to its layer, the roundings and other kernels."""
        inside = [node for name in call.origins if name in self._nodes for node in self._inside(name)]
        layers = [node for node in inside if op_type(node) in _ARITHMETIC and node.name not in self.found]
        own = layers[0] if call.is_layer and layers else inside[0] if inside else None
        for node in inside:
            if node is own or (not call.is_layer and not _is_rounding(node)):
                self.found[node.name] = Placed(actual="int8", kernel=call.op)
            elif node.name not in self.found and not _is_rounding(node) and node not in layers:
                self.found[node.name] = Placed(actual="fused", kernel=call.op)

    def _inside(self, end: str) -> Iterator[Any]:
        """The nodes from the result back to where another call's result or a rounded value is read."""
        pending, seen = [self._nodes[end]], {end}
        while pending:
            node = pending.pop(0)
            yield node
            if op_type(node) in _ARITHMETIC:
                continue
            for read in node.all_input_nodes:
                if read.op != "call_function" or read.name in seen or read.name in self._ends:
                    continue
                if not _is_rounding(read):
                    seen.add(read.name)
                    pending.append(read)

    def _float(self, call: Call) -> None:
        for name in call.origins:
            node = self._nodes.get(name)
            if node is not None and not _is_rounding(node):
                actual = "stored" if self._widens_rows(node) else "float"
                self.found.setdefault(name, Placed(actual=actual, kernel=call.op))

    def _widens_rows(self, node: Node) -> bool:
        """Whether ``node`` scales rows of a table that were looked up as integers."""
        read = [before for other in node.all_input_nodes for before in (other, *other.all_input_nodes)]
        return any(before.name in self._rows for before in read) and node.name not in self._rows


def _is_rounding(node: Node) -> bool:
    return any(word in str(node.target) for word in _ROUNDING)
