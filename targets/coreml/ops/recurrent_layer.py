"""An ONNX recurrent node, read: its sequence, and the weights and initial states of every direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.recurrent_activations import Activation, activations_of
from edgeq.targets.coreml.ops.tensors import like, scalar, shape_of, size, sizes
from edgeq.targets.coreml.toolkit import builder

State = tuple[Var, ...]  # (hidden,), with LSTM (hidden, cell); each [batch, hidden size]

_REVERSED = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
_WEIGHT, _RECURRENCE, _BIAS, _LENGTHS, _HIDDEN, _CELL, _PEEPHOLE = range(1, 8)


@dataclass(frozen=True)
class Kind:
    """What LSTM, GRU and RNN differ in: gates, default activations, the inputs that are initial states."""

    gates: int
    activations: tuple[str, ...]
    states: tuple[int, ...] = (_HIDDEN,)


LSTM = Kind(4, ("Sigmoid", "Tanh", "Tanh"), (_HIDDEN, _CELL))
GRU = Kind(3, ("Sigmoid", "Tanh"))
RNN = Kind(1, ("Tanh",))


@dataclass(frozen=True)
class Direction:
    """One direction's weights [gates * hidden, …] in ONNX's order of gates, and its initial state."""

    backward: bool
    weight: Array
    recurrence: Array
    input_bias: Array
    recurrent_bias: Array
    peephole: Array | None
    activations: Sequence[Activation]
    state: State


@dataclass(frozen=True)
class Layer:
    """``x``: [steps, batch, inputs]; ``lengths``: int32 [batch] where sequences may be shorter."""

    x: Var
    hidden: int
    clip: float | None
    lengths: Var | None
    batch_first: bool
    directions: Sequence[Direction] = ()

    @property
    def steps(self) -> int | None:
        """Number of steps, None when it is only known at run time."""
        return sizes(self.x)[0]


def read_layer(node: OnnxNode, kind: Kind) -> Layer:
    """The node's inputs and the attributes that the three ops share."""
    node.require_float(0, *(index for index in kind.states if node.has_input(index)))
    if node.rank(0) != 3:
        node.refuse(f"its input has rank {node.rank(0)} instead of 3")
    batch_first = bool(node.attribute("layout", 0))
    x = node.input(0)
    x = builder().transpose(x=x, perm=[1, 0, 2]) if batch_first else x
    layer = Layer(x, _hidden_size(node), node.attribute("clip"), _lengths(node, x), batch_first)
    return replace(layer, directions=_directions(node, layer, kind))


def _hidden_size(node: OnnxNode) -> int:
    columns = node.shape(_RECURRENCE)[-1]
    hidden = node.attribute("hidden_size", columns)
    if columns is None or hidden != columns:
        node.refuse(f"its hidden_size is {hidden}, and R has {columns} columns")
    return columns


def _directions(node: OnnxNode, layer: Layer, kind: Kind) -> list[Direction]:
    name = str(node.attribute("direction", "forward")).lower()
    if name not in _REVERSED:
        node.refuse(f"its direction is {name!r}")
    backward, x = _REVERSED[name], layer.x
    count = len(backward)
    parts = zip(
        backward,
        like(x, node.known(_WEIGHT, "weight W")),
        like(x, node.known(_RECURRENCE, "recurrence weight R")),
        *_biases(node, x, count, kind.gates * layer.hidden),
        _peepholes(node, x, count) if kind is LSTM else [None] * count,
        activations_of(node, kind.activations, count),
        _states(node, layer, kind, count),
        strict=True,
    )
    return [Direction(*part) for part in parts]


def _biases(node: OnnxNode, x: Var, directions: int, rows: int) -> tuple[Array, Array]:
    """The biases of the inputs and of the state, [directions, rows] both."""
    if not node.has_input(_BIAS):
        return (like(x, np.zeros((directions, rows))),) * 2
    both = like(x, node.known(_BIAS, "bias B"))
    return both[:, :rows], both[:, rows:]


def _peepholes(node: OnnxNode, x: Var, directions: int) -> Sequence[Array | None]:
    """One vector of three gates per direction; None where there are none or all are 0."""
    if not node.has_input(_PEEPHOLE):
        return [None] * directions
    return [row if row.any() else None for row in like(x, node.known(_PEEPHOLE, "peephole weight P"))]


def _lengths(node: OnnxNode, x: Var) -> Var | None:
    """The input sequence_lens, None where every sequence takes all steps."""
    if not node.has_input(_LENGTHS):
        return None
    known, steps = node.constant(_LENGTHS), sizes(x)[0]
    if known is not None and steps is not None and np.all(known == steps):
        return None
    return node.input(_LENGTHS)


def _states(node: OnnxNode, layer: Layer, kind: Kind, directions: int) -> list[State]:
    given = [_state(node, layer, index, directions) for index in kind.states]
    return list(zip(*given, strict=True))


def _state(node: OnnxNode, layer: Layer, index: int, directions: int) -> list[Var]:
    """The initial state of every direction, [batch, hidden size]."""
    mb, axis = builder(), 1 if layer.batch_first else 0
    if not node.has_input(index):
        return [zeros(layer)] * directions
    value = node.input(index)
    if directions == 1:
        return [mb.squeeze(x=value, axes=[axis])]
    return [mb.squeeze(x=part, axes=[axis]) for part in mb.split(x=value, num_splits=directions, axis=axis)]


def zeros(layer: Layer) -> Var:
    """Zeros [batch, hidden size]."""
    shape = shape_of([size(layer.x, 1), layer.hidden])
    return builder().fill(shape=shape, value=scalar(layer.x, 0.0))
