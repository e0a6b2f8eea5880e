"""Kernels of the MIL recurrent ops: x [s, b, i] → every step's hidden state [s, b, h], and the last state.

The order of a reversed sequence's steps and LSTM's clipping are not in MIL's documentation; they follow
coremltools' tests, which run them on macOS: ``reverse`` gives the steps in the order of computing,
``bidirectional`` the backward half in the order of time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.errors import TargetError
from edgeq.targets.coreml.interpreter.call import Call, Kernel

_Activation = Callable[[Array], Array]


def _sigmoid(x: Array) -> Array:
    # by tanh: exp of large negative numbers would overflow
    return np.asarray(0.5 * np.tanh(0.5 * x) + 0.5)


# With MIL's standard parameters (hard_sigmoid: 0.2 and 0.5, scaled_tanh: 1 and 1).
ACTIVATIONS: Mapping[str, _Activation] = {
    "hard_sigmoid": lambda x: np.clip(np.float32(0.2) * x + np.float32(0.5), 0, 1),
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "scaled_tanh": np.tanh,
    "sigmoid": _sigmoid,
    "sigmoid_hard": lambda x: np.clip(np.float32(0.2) * x + np.float32(0.5), 0, 1),
    "tanh": np.tanh,
}


def _activation(call: Call, parameter: str, default: str) -> _Activation:
    name = str(call.get(parameter, default)).lower()
    if name not in ACTIVATIONS:
        raise TargetError(f"Core ML: {call.op_type} {call.name!r} has the unknown {parameter} {name!r}.")
    return ACTIVATIONS[name]


def rnn(call: Call) -> tuple[Array, Array]:
    """MIL ``rnn``: h = activation(W_ih x + W_hh h + b)."""
    activation = _activation(call, "activation", "tanh")
    projected, recurrent = _projected(call), call["weight_hh"].T
    state: Array = call["initial_h"]
    steps = []
    for x in projected:
        state = activation(x + state @ recurrent)
        steps.append(state)
    return _sequence(call, steps), state


def gru(call: Call) -> tuple[Array, Array]:
    """MIL ``gru``: gates in the order reset, output, update; the reset gate multiplies the state."""
    if bool(call.get("reset_after", False)):
        raise TargetError(
            f"Core ML: gru {call.name!r} has reset_after, for which Core ML and its documentation differ."
        )
    inner, outer = (
        _activation(call, "recurrent_activation", "sigmoid"),
        _activation(call, "activation", "tanh"),
    )
    state: Array = call["initial_h"]
    size = state.shape[-1]
    gates, output = (
        call["weight_hh"][[*range(size), *range(2 * size, 3 * size)]].T,
        call["weight_hh"][size : 2 * size].T,
    )
    steps = []
    for x in _projected(call):
        reset, update = np.split(
            inner(np.delete(x, np.s_[size : 2 * size], axis=-1) + state @ gates), 2, axis=-1
        )
        candidate = outer(x[:, size : 2 * size] + (reset * state) @ output)
        state = (1 - update) * candidate + update * state
        steps.append(state)
    return _sequence(call, steps), state


@dataclass(frozen=True)
class _Direction:
    """Weights and states of one direction of an LSTM."""

    weight_ih: Array
    weight_hh: Array
    bias: Array | None
    peephole: Array | None
    hidden: Array
    cell: Array


def lstm(call: Call) -> tuple[Array, Array, Array]:
    """MIL ``lstm``: gates in the order input, forget, output, cell; two directions side by side."""
    x: Array = call["x"]
    direction = str(call.get("direction", "forward"))
    if direction != "bidirectional":
        steps, cell = _lstm_steps(call, _in_order(call, x), _direction(call, "", slice(None)))
        return _sequence(call, steps), steps[-1], cell
    size = call["weight_hh"].shape[1]
    forward, cell = _lstm_steps(call, x, _direction(call, "", slice(size)))
    backward, cell_back = _lstm_steps(call, x[::-1], _direction(call, "_back", slice(size, None)))
    hidden = np.concatenate([forward[-1], backward[-1]], axis=-1)
    cells = np.concatenate([cell, cell_back], axis=-1)
    if not bool(call.get("output_sequence", False)):
        return hidden[None], hidden, cells
    return np.concatenate([np.stack(forward), np.stack(backward[::-1])], axis=-1), hidden, cells


def _direction(call: Call, suffix: str, part: slice) -> _Direction:
    return _Direction(
        call[f"weight_ih{suffix}"],
        call[f"weight_hh{suffix}"],
        call.get(f"bias{suffix}"),
        call.get(f"peephole{suffix}"),
        call["initial_h"][:, part],
        call["initial_c"][:, part],
    )


def _lstm_steps(call: Call, x: Array, weights: _Direction) -> tuple[list[Array], Array]:
    inner = _activation(call, "recurrent_activation", "sigmoid")
    middle, outer = _activation(call, "cell_activation", "tanh"), _activation(call, "activation", "tanh")
    hidden, cell, clip = weights.hidden, weights.cell, call.get("clip")
    peephole = np.zeros(3 * hidden.shape[-1], np.float32) if weights.peephole is None else weights.peephole
    look_in, look_forget, look_out = np.split(peephole, 3)
    steps = []
    for projected in _project(x, weights.weight_ih, weights.bias):
        entry, forget, output, fresh = np.split(projected + hidden @ weights.weight_hh.T, 4, axis=-1)
        cell = inner(forget + look_forget * cell) * cell + inner(entry + look_in * cell) * middle(fresh)
        cell = cell if clip is None else np.clip(cell, -clip, clip)
        hidden = inner(output + look_out * cell) * outer(cell)
        steps.append(hidden)
    return steps, cell


def _projected(call: Call) -> Array:
    """The input's part of every gate, all steps at once, in the order of computing."""
    result = _project(_in_order(call, call["x"]), call["weight_ih"], call.get("bias"))
    more: Any = call.get("input_bias")
    return result if more is None else np.asarray(result + more)


def _project(x: Array, weight: Array, bias: Array | None) -> Array:
    result = np.matmul(x.reshape(-1, x.shape[-1]), weight.T).reshape(*x.shape[:2], -1)
    return result if bias is None else np.asarray(result + bias)


def _in_order(call: Call, x: Array) -> Array:
    direction = str(call.get("direction", "forward"))
    if direction not in ("forward", "reverse"):
        raise TargetError(f"Core ML: {call.op_type} {call.name!r} has the unknown direction {direction!r}.")
    return x if direction == "forward" else x[::-1]


def _sequence(call: Call, steps: list[Array]) -> Array:
    return np.stack(steps if bool(call.get("output_sequence", False)) else steps[-1:])


KERNELS: dict[str, Kernel] = {"gru": gru, "lstm": lstm, "rnn": rnn}
