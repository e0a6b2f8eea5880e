"""One step of LSTM, GRU and RNN as plain arithmetic, in ONNX's formulas and order of gates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgeq.targets.coreml.frontend.node import Var
from edgeq.targets.coreml.ops.recurrent_activations import Activation
from edgeq.targets.coreml.ops.recurrent_layer import Direction, State
from edgeq.targets.coreml.ops.tensors import scalar
from edgeq.targets.coreml.toolkit import builder

# The input's part of the gates [batch, gates * hidden], and the state before: the state after.
Cell = Callable[[Var, State], State]


@dataclass(frozen=True)
class CellOptions:
    """What an ONNX cell may have that MIL's ops do not."""

    clip: float | None = None
    couples_forget: bool = False
    resets_after: bool = False

    @property
    def plain(self) -> bool:
        """Whether none of it is asked for."""
        return self == CellOptions()


def _active(function: Activation, x: Var, clip: float | None) -> Var:
    if clip is not None:
        x = builder().clip(x=x, alpha=scalar(x, -clip), beta=scalar(x, clip))
    return function(x)


def rnn_cell(direction: Direction, options: CellOptions) -> Cell:
    """RNN: ``f(x W + h R + b)``."""
    recurrent = _product(direction, slice(None))

    def step(entry: Var, state: State) -> State:
        total = builder().add(x=entry, y=recurrent(state[0]))
        return (_active(direction.activations[0], total, options.clip),)

    return step


def _product(direction: Direction, rows: slice) -> Callable[[Var], Var]:
    """``h R + b`` for these rows of R, whose constants all steps share."""
    mb = builder()
    weight = mb.const(val=direction.recurrence[rows])
    bias = mb.const(val=direction.recurrent_bias[rows])
    return lambda hidden: mb.linear(x=hidden, weight=weight, bias=bias)


def gru_cell(direction: Direction, options: CellOptions) -> Cell:
    """GRU, gates in the order update, reset, hidden; ``resets_after`` is ``linear_before_reset=1``."""
    inner, outer = direction.activations
    size = direction.recurrence.shape[1]
    gates_of, fresh_of = _product(direction, slice(2 * size)), _product(direction, slice(2 * size, None))

    def step(entry: Var, state: State) -> State:
        mb, (hidden,) = builder(), state
        x_gates, x_fresh = mb.split(x=entry, split_sizes=[2 * size, size], axis=-1)
        gates = _active(inner, mb.add(x=x_gates, y=gates_of(hidden)), options.clip)
        update, reset = mb.split(x=gates, num_splits=2, axis=-1)
        if options.resets_after:
            h_fresh = mb.mul(x=reset, y=fresh_of(hidden))
        else:
            h_fresh = fresh_of(mb.mul(x=reset, y=hidden))
        fresh = _active(outer, mb.add(x=x_fresh, y=h_fresh), options.clip)
        kept = mb.mul(x=update, y=hidden)
        return (mb.add(x=mb.mul(x=mb.sub(x=scalar(update, 1), y=update), y=fresh), y=kept),)

    return step


def lstm_cell(direction: Direction, options: CellOptions) -> Cell:
    """LSTM, gates in the order input, output, forget, cell; peepholes input, output, forget."""
    inner, middle, outer = direction.activations
    size = direction.recurrence.shape[1]
    recurrent = _product(direction, slice(None))

    def gate(x: Var, cell: Var, peephole: int) -> Var:
        if direction.peephole is not None:
            weight = direction.peephole[peephole * size : (peephole + 1) * size]
            x = builder().add(x=x, y=builder().mul(x=cell, y=weight))
        return _active(inner, x, options.clip)

    def step(entry: Var, state: State) -> State:
        mb, (hidden, cell) = builder(), state
        gates = mb.add(x=entry, y=recurrent(hidden))
        enter, leave, forget, fresh = mb.split(x=gates, num_splits=4, axis=-1)
        entering = gate(enter, cell, 0)
        kept = mb.sub(x=scalar(cell, 1), y=entering) if options.couples_forget else gate(forget, cell, 2)
        added = mb.mul(x=entering, y=_active(middle, fresh, options.clip))
        cell = mb.add(x=mb.mul(x=kept, y=cell), y=added)
        leaving = gate(leave, cell, 1)
        # ONNX Runtime clips what enters the gates, not the cell state
        return mb.mul(x=leaving, y=outer(cell)), cell

    return step
