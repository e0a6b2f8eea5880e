"""The interpreter's recurrent ops against PyTorch's and ONNX's reference evaluator."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator

from edgeq.errors import TargetError
from tests.support.coreml_kernels import grid, mil, normal

STEPS, BATCH, INPUTS, HIDDEN = 6, 3, 4, 5


def close(found: Any, wanted: Any) -> None:
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine, np.asarray(theirs), rtol=1e-5, atol=2e-6)


def numpy_of(module: torch.nn.Module, name: str) -> np.ndarray:
    return module.state_dict()[name].numpy()


def ifoz(array: np.ndarray) -> np.ndarray:
    """PyTorch's order of gates (input, forget, cell, output) as MIL's."""
    i, f, z, o = np.split(array, 4)
    return np.concatenate([i, f, o, z])


def lstm_weights(module: torch.nn.LSTM, suffix: str = "") -> dict[str, np.ndarray]:
    back = "_back" if suffix else ""
    bias = numpy_of(module, f"bias_ih_l0{suffix}") + numpy_of(module, f"bias_hh_l0{suffix}")
    return {
        f"weight_ih{back}": ifoz(numpy_of(module, f"weight_ih_l0{suffix}")),
        f"weight_hh{back}": ifoz(numpy_of(module, f"weight_hh_l0{suffix}")),
        f"bias{back}": ifoz(bias),
    }


@pytest.mark.parametrize(("direction", "sequence"), grid(("forward", "reverse"), (False, True)))
@torch.no_grad()
def test_lstm(direction: str, sequence: bool) -> None:
    torch.manual_seed(0)
    module = torch.nn.LSTM(INPUTS, HIDDEN)
    x, h, c = normal(STEPS, BATCH, INPUTS), normal(BATCH, HIDDEN, seed=1), normal(BATCH, HIDDEN, seed=2)
    source = torch.from_numpy(x if direction == "forward" else x[::-1].copy())
    steps, (last, cell) = module(source, (torch.from_numpy(h)[None], torch.from_numpy(c)[None]))
    found = mil(
        "lstm",
        x=x,
        initial_h=h,
        initial_c=c,
        direction=direction,
        output_sequence=sequence,
        **lstm_weights(module),
    )
    close(found, (steps if sequence else steps[-1:], last[0], cell[0]))


@pytest.mark.parametrize("sequence", [False, True])
@torch.no_grad()
def test_bidirectional_lstm(sequence: bool) -> None:
    torch.manual_seed(0)
    module = torch.nn.LSTM(INPUTS, HIDDEN, bidirectional=True)
    x, h, c = normal(STEPS, BATCH, INPUTS), normal(2, BATCH, HIDDEN, seed=1), normal(2, BATCH, HIDDEN, seed=2)
    steps, (last, cell) = module(torch.from_numpy(x), (torch.from_numpy(h), torch.from_numpy(c)))
    found = mil(
        "lstm",
        x=x,
        initial_h=np.concatenate(list(h), axis=-1),
        initial_c=np.concatenate(list(c), axis=-1),
        direction="bidirectional",
        output_sequence=sequence,
        **lstm_weights(module),
        **lstm_weights(module, "_reverse"),
    )
    hidden, cells = torch.cat(list(last), -1), torch.cat(list(cell), -1)
    close(found, (steps if sequence else hidden[None], hidden, cells))


def onnx_result(op: str, inputs: list[np.ndarray | None], **attributes: Any) -> list[np.ndarray]:
    names = ["" if array is None else f"i{index}" for index, array in enumerate(inputs)]
    outputs = ["y", "h", "c"] if op == "LSTM" else ["y", "h"]
    node = helper.make_node(op, names, outputs, hidden_size=HIDDEN, **attributes)
    given = {name: array for name, array in zip(names, inputs, strict=True) if array is not None}
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, a.shape) for n, a in given.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)])
    return ReferenceEvaluator(model).run(None, given)


def test_lstm_peepholes() -> None:
    x, peephole = normal(STEPS, BATCH, INPUTS), normal(3 * HIDDEN, seed=3)
    weight_ih, weight_hh = normal(4 * HIDDEN, INPUTS, seed=1), normal(4 * HIDDEN, HIDDEN, seed=2)
    h, c = normal(BATCH, HIDDEN, seed=4), normal(BATCH, HIDDEN, seed=5)

    def iofc(array: np.ndarray) -> np.ndarray:
        i, f, o, z = np.split(array, 4)
        return np.concatenate([i, o, f, z])[None]

    i, f, o = np.split(peephole, 3)
    y, last, _ = onnx_result(
        "LSTM",
        [x, iofc(weight_ih), iofc(weight_hh), None, None, h[None], c[None], np.concatenate([i, o, f])[None]],
    )
    found = mil(
        "lstm",
        x=x,
        initial_h=h,
        initial_c=c,
        weight_ih=weight_ih,
        weight_hh=weight_hh,
        peephole=peephole,
        output_sequence=True,
    )
    close(found[:2], (y[:, 0], last[0]))


def test_lstm_clips_its_cell() -> None:
    ones = np.full((4, 1), 10, np.float32)
    zeros = np.zeros((1, 1), np.float32)
    x = np.ones((5, 1, 1), np.float32)
    shared = {"x": x, "initial_h": zeros, "initial_c": zeros, "weight_ih": ones, "weight_hh": ones * 0}
    _, hidden, cell = mil("lstm", **shared, clip=1.5)
    assert cell[0, 0] == 1.5
    assert hidden[0, 0] == pytest.approx(np.tanh(1.5), rel=1e-4)
    assert mil("lstm", **shared)[2][0, 0] == pytest.approx(5, rel=1e-3)


@pytest.mark.parametrize(("direction", "sequence"), grid(("forward", "reverse"), (False, True)))
def test_gru_resets_the_state_before_the_product(direction: str, sequence: bool) -> None:
    x, h = normal(STEPS, BATCH, INPUTS), normal(BATCH, HIDDEN, seed=1)
    weight_ih, weight_hh = normal(3 * HIDDEN, INPUTS, seed=2), normal(3 * HIDDEN, HIDDEN, seed=3)
    bias = normal(3 * HIDDEN, seed=4)

    def zrh(array: np.ndarray) -> np.ndarray:
        r, o, z = np.split(array, 3)
        return np.concatenate([z, r, o])[None]

    both = np.concatenate([zrh(bias), np.zeros((1, 3 * HIDDEN), np.float32)], axis=1)
    source = x if direction == "forward" else x[::-1].copy()
    y, last = onnx_result("GRU", [source, zrh(weight_ih), zrh(weight_hh), both, None, h[None]])
    found = mil(
        "gru",
        x=x,
        initial_h=h,
        weight_ih=weight_ih,
        weight_hh=weight_hh,
        bias=bias,
        direction=direction,
        output_sequence=sequence,
    )
    close(found, (y[:, 0] if sequence else y[-1:, 0], last[0]))


def test_gru_adds_its_input_bias() -> None:
    x, h, bias = normal(STEPS, BATCH, INPUTS), normal(BATCH, HIDDEN, seed=1), normal(3 * HIDDEN, seed=4)
    weight_ih, weight_hh = normal(3 * HIDDEN, INPUTS, seed=2), normal(3 * HIDDEN, HIDDEN, seed=3)
    shared = {"x": x, "initial_h": h, "weight_ih": weight_ih, "weight_hh": weight_hh}
    close(mil("gru", **shared, bias=bias / 2, input_bias=bias / 2), mil("gru", **shared, bias=bias))


def test_gru_refuses_reset_after() -> None:
    with pytest.raises(TargetError, match="reset_after"):
        mil("gru", x=normal(1, 1, 1), reset_after=True)


@pytest.mark.parametrize(("direction", "nonlinearity"), grid(("forward", "reverse"), ("tanh", "relu")))
@torch.no_grad()
def test_rnn(direction: str, nonlinearity: str) -> None:
    torch.manual_seed(0)
    module = torch.nn.RNN(INPUTS, HIDDEN, nonlinearity=nonlinearity)
    x, h = normal(STEPS, BATCH, INPUTS), normal(BATCH, HIDDEN, seed=1)
    source = torch.from_numpy(x if direction == "forward" else x[::-1].copy())
    steps, last = module(source, torch.from_numpy(h)[None])
    found = mil(
        "rnn",
        x=x,
        initial_h=h,
        weight_ih=numpy_of(module, "weight_ih_l0"),
        weight_hh=numpy_of(module, "weight_hh_l0"),
        bias=numpy_of(module, "bias_ih_l0") + numpy_of(module, "bias_hh_l0"),
        direction=direction,
        activation=nonlinearity,
        output_sequence=True,
    )
    close(found, (steps, last[0]))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("hard_sigmoid", [0.0, 0.4, 1.0]),
        ("linear", [-4.0, -0.5, 4.0]),
        ("sigmoid", [0.01799, 0.37754, 0.98201]),
    ],
)
def test_activations_by_name(name: str, wanted: list[float]) -> None:
    x = np.array([-4, -0.5, 4], np.float32).reshape(1, 3, 1)
    one, zero = np.ones((1, 1), np.float32), np.zeros((3, 1), np.float32)
    _, last = mil("rnn", x=x, initial_h=zero, weight_ih=one, weight_hh=one, activation=name)
    np.testing.assert_allclose(last[:, 0], wanted, atol=1e-5)


def test_what_is_unknown() -> None:
    one = np.ones((1, 1), np.float32)
    shared = {"x": one[None], "initial_h": one, "weight_ih": one, "weight_hh": one}
    with pytest.raises(TargetError, match="unknown activation 'swish'"):
        mil("rnn", **shared, activation="swish")
    with pytest.raises(TargetError, match="unknown direction 'sideways'"):
        mil("rnn", **shared, direction="sideways")
