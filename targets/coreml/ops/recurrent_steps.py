"""Recurrent layers step by step, for what MIL's own recurrent ops cannot express."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeq.targets.coreml.frontend.node import Var
from edgeq.targets.coreml.ops.recurrent_cells import Cell
from edgeq.targets.coreml.ops.recurrent_layer import Direction, Layer, State, zeros
from edgeq.targets.coreml.ops.tensors import scalar, shape_of, size
from edgeq.targets.coreml.toolkit import builder

# Up to this many steps are written out; more are a loop.
LONGEST_UNROLLED = 64


@dataclass(frozen=True)
class States:
    """Every step's hidden state [steps, batch, hidden] (None: nobody wants it), and the last state."""

    steps: Var | None
    last: State


def stepwise(layer: Layer, direction: Direction, cell: Cell, *, every: bool) -> States:
    """``cell`` over all steps of the layer; ``every``: all hidden states are wanted."""
    run = _Steps(layer, direction, cell)
    count = layer.steps
    written_out = count is not None and count <= LONGEST_UNROLLED
    found = run.unrolled(every) if written_out else run.looped(every)
    return replace(found, last=run.without_empty(found.last))


class _Steps:
    def __init__(self, layer: Layer, direction: Direction, cell: Cell) -> None:
        self.layer, self.direction, self.cell = layer, direction, cell
        mb = builder()
        self.entries = mb.linear(x=layer.x, weight=direction.weight, bias=direction.input_bias)
        self.zeros = None if layer.lengths is None else zeros(layer)
        self.lengths = None if layer.lengths is None else self._lengths(layer.lengths)

    def _lengths(self, lengths: Var) -> Var:
        """The sequences' lengths in the shape of a state: MIL's select does not broadcast."""
        column = builder().expand_dims(x=lengths, axes=[1])
        return builder().add(x=column, y=np.zeros((1, self.layer.hidden), np.int32))

    def step(self, index: Any, entry: Var, state: State) -> tuple[Var, State]:
        """The hidden state to give out and the next state; past a sequence's end 0, and the state stays."""
        fresh = self.cell(entry, state)
        if self.lengths is None:
            return fresh[0], fresh
        mb = builder()
        inside = mb.greater(x=self.lengths, y=index)
        kept = tuple(mb.select(cond=inside, a=new, b=old) for new, old in zip(fresh, state, strict=True))
        return mb.select(cond=inside, a=fresh[0], b=self.zeros), kept

    def without_empty(self, state: State) -> State:
        """The last state, 0 for sequences of length 0 as in ONNX Runtime."""
        if self.lengths is None or (self.lengths.val is not None and np.all(self.lengths.val > 0)):
            return state
        mb = builder()
        there = mb.greater(x=self.lengths, y=np.int32(0))
        return tuple(mb.select(cond=there, a=value, b=self.zeros) for value in state)

    def unrolled(self, every: bool) -> States:
        mb, count = builder(), int(self.layer.x.shape[0])
        parts = mb.split(x=self.entries, num_splits=count, axis=0) if count > 1 else [self.entries]
        state, given = self.direction.state, []
        indices = range(count)[::-1] if self.direction.backward else range(count)
        for index in indices:
            entry = mb.squeeze(x=parts[index], axes=[0])
            hidden, state = self.step(np.int32(index), entry, state)
            given.append(hidden)
        if not every:
            return States(None, state)
        ordered = given[::-1] if self.direction.backward else given
        return States(mb.stack(values=ordered, axis=0), state)

    def looped(self, every: bool) -> States:
        mb, x = builder(), self.layer.x
        count = size(x, 0)
        count = np.array([count], np.int32) if isinstance(count, int) else count
        shape = shape_of([size(x, 0), size(x, 1), self.layer.hidden])
        steps = [mb.fill(shape=shape, value=scalar(x, 0.0))] if every else []

        def goes_on(position: Var, *_: Var) -> Var:
            return mb.squeeze(x=mb.less(x=position, y=count), axes=[0])

        def body(position: Var, *values: Var) -> tuple[Var, ...]:
            index = position
            if self.direction.backward:
                index = mb.sub(x=mb.sub(x=count, y=np.int32(1)), y=position)
            entry = mb.squeeze(x=mb.gather(x=self.entries, indices=index, axis=0), axes=[0])
            hidden, state = self.step(index, entry, values[len(steps) :])
            updates = mb.expand_dims(x=hidden, axes=[0])
            written = [
                mb.scatter(data=old, indices=index, updates=updates, axis=0, mode="update")
                for old in values[: len(steps)]
            ]
            return (mb.add(x=position, y=np.int32(1)), *written, *state)

        start = mb.const(val=np.zeros(1, np.int32))
        found = mb.while_loop(_cond=goes_on, _body=body, loop_vars=(start, *steps, *self.direction.state))
        return States(found[1] if every else None, tuple(found[1 + len(steps) :]))
