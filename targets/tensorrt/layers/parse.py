"""The layer table that the compiler prints, read without guessing: every line is understood or refused.

A line holds the fields of one layer in a fixed order. Names are not quoted and may hold any text, so a
name ends at the first place after which the rest of the line makes sense.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from edgeq.errors import TargetError
from edgeq.targets.tensorrt.layers.inspector import parse_inspector
from edgeq.targets.tensorrt.layers.metadata import node_names
from edgeq.targets.tensorrt.layers.table import Layer, LayerTable, LayerTensor

_HEADING = "Layers:\n"
_LAYER = "Name: "
_TENSOR = "{ Name: "
# What follows the layers: the network's inputs and outputs.
_AFTER = re.compile(r"\n\n?(?:I/O Tensors|Bindings):\n")
_KIND = re.compile(r", LayerType: (?P<kind>[^,\n]+), Inputs: \[")
_SHAPE = re.compile(
    r"(?:, Location: \w+)?, Dimensions: \[(?P<shape>[-\d,]*)\]"
    r"(?:, Strides: \[[-\d,]*\], StrideOrder: \[[-\d,]*\])?, Datatype: (?P<dtype>\w+), Format: "
)
_TENSOR_END = re.compile(r" }(?=\]|, { Name: )")
_CONSTANTS = ", Constants: "
# Layers that hand sizes to the GPU have parameters instead of a tactic, and no constants; layers that wait
# for others have an event besides the stream.
_TAIL = re.compile(
    r", (?:TacticName: (?P<tactic>.*?)|ParameterType: \w+(?:, \w+: \[[^\]\n]*\])*, TacticValue: \w+)"
    r", StreamId: \d+(?:, \w+: [^,\n]*)*, Metadata: ?(?P<metadata>.*)\Z",
    re.DOTALL,
)
_SHOWN = 200


def parse_table(text: str, sm: int) -> LayerTable:
    """The layers of ``text``: what the compiler printed, or the JSON of TensorRT's engine inspector.

    Raises:
        TargetError: a line that is no layer, with its text.
    """
    if text.lstrip().startswith("{"):
        return parse_inspector(text, sm)
    if not text.startswith(_HEADING):
        raise _refused(text)
    body, *rest = _AFTER.split(text[len(_HEADING) :], maxsplit=1)
    if rest and _HEADING in rest[0]:
        raise _refused(rest[0][rest[0].index(_HEADING) :])
    body = body.rstrip("\n")
    return LayerTable(sm=sm, layers=tuple(_layers(body)) if body else ())


def _layers(body: str) -> Iterator[Layer]:
    """The layers in order; a line break inside of a name makes a layer go on over several lines."""
    lines = body.split("\n")
    starts = [index for index, line in enumerate(lines) if line.startswith(_LAYER)]
    if starts[:1] != [0]:
        raise _refused(lines[0])
    for start, end in pairwise([*starts, len(lines)]):
        yield _layer_of(lines[start:end])


def _layer_of(lines: list[str]) -> Layer:
    for end in range(len(lines), 0, -1):
        try:
            layer = _layer("\n".join(lines[:end]))
        except ValueError:
            continue
        if end < len(lines):
            raise _refused(lines[end])
        return layer
    raise _refused(lines[0])


def _layer(text: str) -> Layer:
    # A name may hold anything, the fields of a layer too: the last place that reads as their start is it.
    for found in reversed(list(_KIND.finditer(text, len(_LAYER)))):
        try:
            return _fields(text, found)
        except ValueError:
            continue
    raise ValueError(text)


def _fields(text: str, kind: re.Match[str]) -> Layer:
    inputs, at = _tensors(text, kind.end() - 1)
    constants: tuple[LayerTensor, ...] = ()
    if text.startswith(_CONSTANTS, at):
        constants, at = _tensors(text, at + len(_CONSTANTS))
    outputs, at = _tensors(text, _expect(text, at, ", Outputs: "))
    tail = _TAIL.match(text, at)
    if tail is None:
        raise ValueError(text)
    return Layer(
        name=text[len(_LAYER) : kind.start()],
        kind=kind["kind"],
        inputs=inputs,
        constants=constants,
        outputs=outputs,
        nodes=node_names(tail["metadata"]),
        tactic=tail["tactic"] or "",
    )


def _tensors(text: str, at: int) -> tuple[tuple[LayerTensor, ...], int]:
    """The tensors of the list that begins at ``at``, and where it ends."""
    at = _expect(text, at, "[")
    found: list[LayerTensor] = []
    while not text.startswith("]", at):
        tensor, at = _tensor(text, _expect(text, at, ", " if found else " "))
        found.append(tensor)
    return tuple(found), at + 1


def _tensor(text: str, at: int) -> tuple[LayerTensor, int]:
    at = _expect(text, at, _TENSOR)
    facts = _SHAPE.search(text, at)
    end = None if facts is None else _TENSOR_END.search(text, facts.end())
    if facts is None or end is None:
        raise ValueError(text)
    shape = tuple(int(size) for size in facts["shape"].split(",") if size)
    return LayerTensor(name=text[at : facts.start()], dtype=facts["dtype"], shape=shape), end.end()


def _expect(text: str, at: int, wanted: str) -> int:
    if not text.startswith(wanted, at):
        raise ValueError(text)
    return at + len(wanted)


def _refused(line: str) -> TargetError:
    shown = line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"
    return TargetError(
        f"The compiler's layer table holds a line that cannot be read: {shown!r}.",
        fix="Report it together with the version of TensorRT; without the table nothing can be proved.",
    )
