"""LSTM, GRU and RNN as Core ML packages, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.lower import Lowered
from edgeq.targets.coreml.frontend.node import RefusedNodeError
from edgeq.targets.coreml.interpreter.engine import Interpreter
from edgeq.targets.coreml.interpreter.program import read_package
from edgeq.targets.coreml.package.write import write_package
from edgeq.targets.coreml.ports import from_package, to_package
from edgeq.targets.dimensions import Dimension
from tests.support.coreml_nodes import Node, model_of_nodes, run_nodes
from tests.support.coreml_ops import Op, by_onnxruntime, lower_ops, refusal

STEPS, BATCH, INPUTS, HIDDEN = 5, 3, 4, 6
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FUNCTIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
CLOSE = {"rtol": 1e-5, "atol": 2e-6}
HALF = {"rtol": 1e-2, "atol": 5e-3}
GRID = [(kind, direction) for kind in GATES for direction in DIRECTIONS]


def floats(*shape: int, seed: int = 0, scale: float = 1.0) -> Array:
    return (np.random.default_rng([seed, *shape]).normal(size=shape) * scale).astype(np.float32)


def weights(kind: str, directions: int) -> dict[str, Array]:
    rows = GATES[kind] * HIDDEN
    return {
        "w": floats(directions, rows, INPUTS, seed=1, scale=0.7),
        "r": floats(directions, rows, HIDDEN, seed=2, scale=0.7),
        "b": floats(directions, 2 * rows, seed=3),
        "p": floats(directions, 3 * HIDDEN, seed=4),
    }


def states(directions: int, batch: int = BATCH) -> dict[str, Array]:
    shape = (directions, batch, HIDDEN)
    return {"h": floats(*shape, seed=5), "c": floats(*shape, seed=6)}


def node(kind: str, direction: str, names: str = "x w r b", every: int = 7, **attributes: Any) -> Node:
    """``names``: the inputs, ``-`` for one left out; ``every``: which outputs it has, as bits."""
    outputs = [bool(every >> index & 1) for index in range(3 if kind == "LSTM" else 2)]
    inputs = ["" if name == "-" else name for name in names.split()]
    return Node(kind, inputs, outputs, {"hidden_size": HIDDEN, "direction": direction, **attributes})


def used(nodes: list[Node], arrays: Mapping[str, Array]) -> dict[str, Array]:
    names = {name for each in nodes for name in each.inputs}
    return {name: array for name, array in arrays.items() if name in names}


def check(
    kind: str, direction: str, nodes: list[Node], folder: Path, x: Array | None = None, **more: Any
) -> None:
    x = floats(STEPS, BATCH, INPUTS) if x is None else x
    directions = DIRECTIONS[direction]
    tolerance = more.pop("tolerance", CLOSE)
    given = {"x": x, **states(directions, x.shape[1]), **more.pop("inputs", {})}
    run = run_nodes(
        nodes, used(nodes, given), folder, constants=used(nodes, weights(kind, directions)), **more
    )
    run.check(**tolerance)


@pytest.mark.parametrize(("kind", "direction"), GRID)
def test_inputs_and_outputs_in_every_combination(kind: str, direction: str, tmp_path: Path) -> None:
    state = "h c" if kind == "LSTM" else "h"
    nodes = [
        node(kind, direction, names, every)
        for names in ("x w r", "x w r b", f"x w r b - {state}", f"x w r - - {state}")
        for every in ((7, 1, 2, 4, 6) if kind == "LSTM" else (3, 1, 2))
    ]
    check(kind, direction, nodes, tmp_path)


@pytest.mark.parametrize(("kind", "direction"), GRID)
def test_options(kind: str, direction: str, tmp_path: Path) -> None:
    state = "h c" if kind == "LSTM" else "h"
    full = f"x w r b - {state}" + (" p" if kind == "LSTM" else "")
    nodes = [node(kind, direction, full), node(kind, direction, full, clip=0.5)]
    if kind == "GRU":
        nodes += [node(kind, direction, full, linear_before_reset=1)]
        nodes += [node(kind, direction, full, linear_before_reset=1, clip=0.5)]
    if kind == "LSTM":
        nodes += [node(kind, direction, full, input_forget=1)]
    check(kind, direction, nodes, tmp_path)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize(("kind", "direction"), GRID)
def test_sequences_of_different_lengths(kind: str, direction: str, constant: bool, tmp_path: Path) -> None:
    lengths = {
        "n": np.array([2, 5, 1], np.int32),
        "empty": np.array([0, 3, 5], np.int32),
        "all": np.full(BATCH, STEPS, np.int32),
    }
    state = "h c" if kind == "LSTM" else "h"
    names = ["n", "empty", "all"]
    nodes = [node(kind, direction, f"x w r b {n} {state}") for n in names] + [
        node(kind, direction, "x w r b n")
    ]
    x, directions = floats(STEPS, BATCH, INPUTS), DIRECTIONS[direction]
    inputs, constants = {"x": x, **states(directions)}, weights(kind, directions)
    (constants if constant else inputs).update(lengths)
    run = run_nodes(nodes, used(nodes, inputs), tmp_path, constants=used(nodes, constants))
    run.check(**CLOSE)


ACTIVATIONS: list[tuple[str, list[str], dict[str, list[float]]]] = [
    *(("RNN", [name], {}) for name in ("Relu", "Sigmoid", "Tanh", "HardSigmoid", "LeakyRelu")),
    *(("RNN", [name], {}) for name in ("Elu", "Softplus", "Softsign")),
    ("RNN", ["Affine"], {"activation_alpha": [0.5], "activation_beta": [0.1]}),
    ("RNN", ["ScaledTanh"], {"activation_alpha": [1.5], "activation_beta": [0.7]}),
    ("RNN", ["ThresholdedRelu"], {"activation_alpha": [0.25]}),
    ("GRU", ["Relu", "Sigmoid"], {}),
    ("GRU", ["hardsigmoid", "TANH"], {}),
    ("GRU", ["Affine", "HardSigmoid"], {"activation_alpha": [0.5, 0.3], "activation_beta": [0.1, 0.4]}),
    ("LSTM", ["Relu", "Sigmoid", "Tanh"], {}),
    ("LSTM", ["sigmoid", "relu", "TANH"], {}),
    ("LSTM", ["HardSigmoid", "LeakyRelu", "Elu"], {}),
    ("LSTM", ["Tanh", "LeakyRelu", "Elu"], {"activation_alpha": [0.3]}),
    ("LSTM", ["HardSigmoid", "ScaledTanh", "Softsign"],
     {"activation_alpha": [0.3, 1.5], "activation_beta": [0.4, 0.5]}),
]  # fmt: skip


def test_activations(tmp_path: Path) -> None:
    for kind in GATES:
        for direction in ("forward", "bidirectional"):
            count = DIRECTIONS[direction]
            nodes = [
                node(
                    kind,
                    direction,
                    activations=functions * count,
                    **{name: numbers * count for name, numbers in parameters.items()},
                )
                for each, functions, parameters in ACTIVATIONS
                if each == kind
            ]
            check(kind, direction, nodes, tmp_path / f"{kind}{count}", x=floats(2, BATCH, INPUTS))


def test_parameters_belong_to_the_functions_that_take_them(tmp_path: Path) -> None:
    nodes = [
        node("RNN", "bidirectional", activations=functions, activation_alpha=[0.3])
        for functions in (["Tanh", "LeakyRelu"], ["LeakyRelu", "Tanh"], ["Elu", "LeakyRelu"])
    ]
    check("RNN", "bidirectional", nodes, tmp_path)


@pytest.mark.parametrize("steps", [1, 64, 65])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_gru_of_pytorch_of_any_length(direction: str, steps: int, tmp_path: Path) -> None:
    nodes = [
        node("GRU", direction, names, every, linear_before_reset=1)
        for names, every in ([("x w r b", 3)] if steps == 64 else [("x w r b", 1), ("x w r b - h", 2)])
    ]
    check("GRU", direction, nodes, tmp_path, x=floats(steps, 2, INPUTS))


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_loops_express_every_option(kind: str, direction: str, tmp_path: Path) -> None:
    state = "h c" if kind == "LSTM" else "h"
    x = floats(70, BATCH, INPUTS)
    inputs = {"n": np.array([70, 0, 66], np.int32)}
    nodes = [
        node(kind, direction, f"x w r b n {state}"),
        node(kind, direction, f"x w r b - {state}", clip=0.7),
    ]
    check(kind, direction, nodes, tmp_path, x=x, inputs=inputs)


@pytest.mark.parametrize("kind", GATES)
def test_dynamic_batches_and_lengths(kind: str, tmp_path: Path) -> None:
    direction = "bidirectional"
    nodes = [
        node(kind, direction),
        node(kind, direction, "x w r b - h c" if kind == "LSTM" else "x w r b - h"),
    ]
    if kind == "GRU":
        nodes.append(node(kind, direction, "x w r b - h", linear_before_reset=1))
        nodes.append(node(kind, direction, "x w r b", linear_before_reset=1))
    axes = {"x": ["s", "n", INPUTS], "h": [2, "n", HIDDEN], "c": [2, "n", HIDDEN]}
    dimensions = {"s": Dimension(1, 80), "n": Dimension(1, 4)}
    for steps, batch in ((1, 1), (7, 3)):
        folder = tmp_path / f"{steps}"
        check(
            kind, direction, nodes, folder, x=floats(steps, batch, INPUTS),
            axes=axes, dimensions=dimensions,
        )  # fmt: skip


@pytest.mark.parametrize("ios", [15, 16, 17, 18])
@pytest.mark.parametrize("kind", GATES)
def test_half_precision_of_every_version(kind: str, ios: int, tmp_path: Path) -> None:
    nodes = [node(kind, "bidirectional"), node(kind, "bidirectional", clip=1.0)]
    if kind == "GRU":
        nodes.append(node(kind, "bidirectional", linear_before_reset=1))
    check(kind, "bidirectional", nodes, tmp_path, arithmetic="float16", ios=ios, tolerance=HALF)
    check(
        kind,
        "bidirectional",
        nodes,
        tmp_path,
        x=floats(66, 1, INPUTS),
        arithmetic="float16",
        ios=ios,
        tolerance=HALF,
    )


def test_half_precision_models(tmp_path: Path) -> None:
    """ONNX Runtime has float32 kernels only, so the wanted numbers are those of the same model in float32."""
    for ios in (16, 17):
        for kind in GATES:
            nodes = [node(kind, "bidirectional")]
            arrays = {"x": floats(STEPS, BATCH, INPUTS), **weights(kind, 2)}
            given = used(nodes, arrays)
            constants = {name: array for name, array in given.items() if name != "x"}
            model, _ = model_of_nodes(nodes, {"x": given["x"]}, constants, None)
            wanted = by_onnxruntime(model, {"x": given["x"]})
            half = {name: array.astype(np.float16) for name, array in constants.items()}
            x = given["x"].astype(np.float16)
            model, _ = model_of_nodes(nodes, {"x": x}, half, None)
            lowered = lower_ops(model, [y.astype(np.float16) for y in wanted], ios=ios)
            got = interpreted(lowered, {"x": x}, tmp_path / f"{kind}{ios}", ios)
            for index, y in enumerate(wanted):
                assert got[f"y{index}"].dtype == np.float16
                np.testing.assert_allclose(got[f"y{index}"], y, **HALF)


def interpreted(lowered: Lowered, inputs: Mapping[str, Array], folder: Path, ios: int) -> dict[str, Array]:
    folder.mkdir()
    write_package(lowered, folder / "p.mlpackage", ios=ios, arithmetic="float16")
    interpreter = Interpreter(read_package(folder / "p.mlpackage"))
    return from_package(lowered.signature, interpreter.run(to_package(lowered.signature, dict(inputs))))


def test_batch_first_layout(tmp_path: Path) -> None:
    """ONNX Runtime has no such kernel: the same node with the batch second, transposed."""
    for kind in GATES:
        nodes = [node(kind, "bidirectional", "x w r b - h c" if kind == "LSTM" else "x w r b - h")]
        arrays = used(nodes, {"x": floats(STEPS, BATCH, INPUTS), **states(2), **weights(kind, 2)})
        inputs = {name: array for name, array in arrays.items() if name in "xhc"}
        constants = {name: array for name, array in arrays.items() if name not in "xhc"}
        wanted = by_onnxruntime(model_of_nodes(nodes, inputs, constants, None)[0], inputs)
        turned = {name: array.swapaxes(0, 1) for name, array in inputs.items()}
        nodes[0] = Node(kind, nodes[0].inputs, nodes[0].outputs, {**nodes[0].attributes, "layout": 1})
        model, _ = model_of_nodes(nodes, turned, constants, None)
        wanted = [wanted[0].transpose(2, 0, 1, 3), *(y.swapaxes(0, 1) for y in wanted[1:])]
        got = interpreted(lower_ops(model, wanted), turned, tmp_path / kind, 18)
        for index, y in enumerate(wanted):
            np.testing.assert_allclose(got[f"y{index}"], y, **HALF)


def operations(model: onnx.ModelProto, outputs: int, ios: int = 18) -> set[str]:
    lowered = lower_ops(model, [np.zeros(1, np.float32)] * outputs, ios=ios)
    return {op.op_type for op in lowered.program["main"].operations}


@pytest.mark.parametrize("kind", GATES)
def test_what_mil_has_is_its_own_op(kind: str) -> None:
    nodes = [node(kind, "bidirectional")]
    x = {"x": floats(STEPS, BATCH, INPUTS)}
    model, labels = model_of_nodes(nodes, x, used(nodes, weights(kind, 2)), None)
    found = operations(model, len(labels))
    assert kind.lower() in found
    assert not found & {"linear", "while_loop"}


def test_half_precision_of_mils_own_ops_begins_with_ios_17() -> None:
    x = {"x": floats(STEPS, BATCH, INPUTS).astype(np.float16)}
    for ios, expected in ((16, "linear"), (17, "lstm")):
        nodes = [node("LSTM", "forward")]
        constants = {
            name: array.astype(np.float16) for name, array in used(nodes, weights("LSTM", 1)).items()
        }
        model, _ = model_of_nodes(nodes, x, constants, None)
        lowered = lower_ops(model, [np.zeros(1, np.float16)] * 3, ios=ios)
        assert expected in {op.op_type for op in lowered.program["main"].operations}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"activations": ["Swish"]}, "activation 'swish'"),
        ({"activations": ["Affine"]}, "'affine' has no alpha or beta"),
        ({"activations": ["Tanh", "Tanh"]}, "2 activations instead of 1"),
        ({"activations": ["Elu"], "activation_alpha": [1.0, 2.0]}, "more activation_alpha"),
        ({"hidden_size": HIDDEN + 1}, f"hidden_size is {HIDDEN + 1}"),
        ({"direction": "sideways"}, "direction is 'sideways'"),
    ],
)
def test_refused_attributes(change: dict[str, Any], reason: str) -> None:
    given = node("RNN", "forward")
    op = Op("RNN", given.inputs, {**given.attributes, **change})
    constants = {name: array for name, array in weights("RNN", 1).items() if name in given.inputs}
    model, _ = model_of_nodes(
        [Node("RNN", op.inputs, (True, True), op.attributes)], {"x": floats(2, 1, INPUTS)}, constants, None
    )
    with pytest.raises(RefusedNodeError, match=reason):
        operations(model, 2)


def test_weights_computed_at_run_time_are_refused() -> None:
    given = node("RNN", "forward", "x w r")
    arrays = used([given], {"x": floats(2, 1, INPUTS), **weights("RNN", 1)})
    found = refusal(Op("RNN", given.inputs, given.attributes), arrays)
    assert "weight W is computed at run time" in found


def test_sequences_of_another_rank_are_refused() -> None:
    given = node("RNN", "forward", "x w r")
    constants = used([given], weights("RNN", 1))
    model, _ = model_of_nodes([given], {"x": floats(1, 2, 1, INPUTS)}, constants, None)
    with pytest.raises(RefusedNodeError, match="input has rank 4 instead of 3"):
        operations(model, 2)
