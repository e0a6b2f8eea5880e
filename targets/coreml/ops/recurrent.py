"""LSTM, GRU and RNN: MIL's own ops where they say what ONNX says, else step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.lowering import mil_type_name
from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.recurrent_cells import Cell, CellOptions, gru_cell, lstm_cell, rnn_cell
from edgeq.targets.coreml.ops.recurrent_layer import GRU, LSTM, RNN, Direction, Kind, Layer, read_layer
from edgeq.targets.coreml.ops.recurrent_steps import States, stepwise
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler

# What MIL's ops and ONNX call the same; of the others MIL does not document the parameters.
_NATIVE_ACTIVATIONS = frozenset({"relu", "sigmoid", "tanh"})
_HALF_SINCE = 17
_LSTM_PEEPHOLES = (0, 2, 1)  # input, forget, output of ONNX's input, output, forget


def _native_lstm(direction: Direction, shared: dict[str, Any]) -> tuple[Var, ...]:
    """MIL ``lstm``: its two states are outputs after the sequence."""
    inner, middle, outer = direction.activations
    peephole = direction.peephole
    found: tuple[Var, ...] = builder().lstm(
        **shared,
        initial_c=direction.state[1],
        peephole=None if peephole is None else _ordered(peephole, _LSTM_PEEPHOLES),
        recurrent_activation=inner.name,
        cell_activation=middle.name,
        activation=outer.name,
    )
    return found


def _native_gru(direction: Direction, shared: dict[str, Any]) -> tuple[Var, ...]:
    """MIL ``gru``: the reset gate multiplies the state, as ONNX's without ``linear_before_reset``."""
    inner, outer = direction.activations
    found: tuple[Var, ...] = builder().gru(**shared, recurrent_activation=inner.name, activation=outer.name)
    return found


def _native_rnn(direction: Direction, shared: dict[str, Any]) -> tuple[Var, ...]:
    """MIL ``rnn``."""
    found: tuple[Var, ...] = builder().rnn(**shared, activation=direction.activations[0].name)
    return found


@dataclass(frozen=True)
class _Op:
    """How one of the three is lowered; ``order``: MIL's gates as positions in ONNX's."""

    kind: Kind
    order: tuple[int, ...]
    native: Callable[[Direction, dict[str, Any]], tuple[Var, ...]]
    cell: Callable[[Direction, CellOptions], Cell]
    options: Callable[[OnnxNode, float | None], CellOptions]

    def __call__(self, node: OnnxNode) -> list[Var | None]:
        """The handler."""
        layer = read_layer(node, self.kind)
        options, every = self.options(node, layer.clip), node.wants(0)
        if _is_native(node, layer, options):
            found = [self._native_run(layer, direction, every) for direction in layer.directions]
        else:
            cells = [self.cell(direction, options) for direction in layer.directions]
            found = [
                stepwise(layer, direction, cell, every=every)
                for direction, cell in zip(layer.directions, cells, strict=True)
            ]
        return _outputs(layer, found, every)

    def _native_run(self, layer: Layer, direction: Direction, every: bool) -> States:
        """Backward as forward on the reversed sequence: MIL does not say in which order its steps are."""
        mb, x = builder(), layer.x
        shared = {
            "x": mb.reverse(x=x, axes=[0]) if direction.backward else x,
            "initial_h": direction.state[0],
            "weight_ih": _ordered(direction.weight, self.order),
            "weight_hh": _ordered(direction.recurrence, self.order),
            "bias": _ordered(direction.input_bias + direction.recurrent_bias, self.order),
            "output_sequence": every,
        }
        steps, *last = self.native(direction, shared)
        if every and direction.backward:
            steps = mb.reverse(x=steps, axes=[0])
        return States(steps if every else None, tuple(last))


def _ordered(rows: Array, order: tuple[int, ...]) -> Array:
    """Blocks of rows, one per gate, in another order."""
    blocks = np.split(rows, len(order))
    return np.concatenate([blocks[gate] for gate in order])


def _is_native(node: OnnxNode, layer: Layer, options: CellOptions) -> bool:
    """Whether MIL's op computes what the node says."""
    names = {function.name for direction in layer.directions for function in direction.activations}
    typed = mil_type_name(layer.x) == "fp32" or node.lowering.ios >= _HALF_SINCE
    return typed and options.plain and layer.lengths is None and names <= _NATIVE_ACTIVATIONS


def _outputs(layer: Layer, found: Sequence[States], every: bool) -> list[Var | None]:
    """Y [steps, directions, batch, hidden] and the last states [directions, batch, hidden]."""
    first = int(layer.batch_first)
    steps = _joined([_batch_first(layer, each.steps) for each in found], 1 + first) if every else None
    return [steps, *(_joined(states, first) for states in zip(*(each.last for each in found), strict=True))]


def _batch_first(layer: Layer, steps: Var) -> Var:
    return builder().transpose(x=steps, perm=[1, 0, 2]) if layer.batch_first else steps


def _joined(parts: Sequence[Var], axis: int) -> Var:
    """The directions along a new axis."""
    if len(parts) == 1:
        return builder().expand_dims(x=parts[0], axes=[axis])
    return builder().stack(values=parts, axis=axis)


def _lstm_options(node: OnnxNode, clip: float | None) -> CellOptions:
    return CellOptions(clip, couples_forget=bool(node.attribute("input_forget", 0)))


def _gru_options(node: OnnxNode, clip: float | None) -> CellOptions:
    return CellOptions(clip, resets_after=bool(node.attribute("linear_before_reset", 0)))


def _rnn_options(node: OnnxNode, clip: float | None) -> CellOptions:
    return CellOptions(clip)


HANDLERS: dict[str, Handler] = {
    "GRU": _Op(GRU, (1, 2, 0), _native_gru, gru_cell, _gru_options),  # reset, hidden, update
    "LSTM": _Op(LSTM, (0, 2, 1, 3), _native_lstm, lstm_cell, _lstm_options),  # input, forget, output, cell
    "RNN": _Op(RNN, (0,), _native_rnn, rnn_cell, _rnn_options),
}
