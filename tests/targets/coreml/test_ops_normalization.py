"""Normalizations as Core ML packages, against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.node import RefusedNodeError
from edgeq.targets.dimensions import Dimension
from tests.support.coreml_nodes import Node, model_of_nodes, run_nodes
from tests.support.coreml_ops import Op, lower_ops, refusal, run_ops

CLOSE = {"rtol": 1e-5, "atol": 5e-6}
HALF = {"rtol": 1e-2, "atol": 1e-2}
BATCHES = {"b": Dimension(1, 4), "s": Dimension(1, 16)}


def floats(*shape: int, seed: int = 0, scale: float = 1.0) -> Array:
    return (np.random.default_rng([seed, *shape]).normal(size=shape) * scale + 0.25).astype(np.float32)


X2, X3, X4, X5 = floats(3, 8), floats(2, 8, 5), floats(2, 8, 5, 3), floats(2, 8, 2, 3, 4)
RANKS = {"x2": X2, "x3": X3, "x4": X4, "x5": X5}
CHANNELS = {f"c{seed}": floats(8, seed=seed) for seed in range(3)} | {"v": np.abs(floats(8, seed=3))}
STATISTICS = ["c0", "c1", "c2", "v"]


@pytest.mark.parametrize("constant", [False, True])
def test_batch_normalization(tmp_path: Path, constant: bool) -> None:
    ops = [Op("BatchNormalization", [x, *STATISTICS], {"momentum": 0.5}) for x in RANKS]
    ops += [Op("BatchNormalization", [x, *STATISTICS], {"epsilon": 0.1}) for x in RANKS]
    inputs, constants = (RANKS, CHANNELS) if constant else (RANKS | CHANNELS, {})
    run_ops(ops, inputs, tmp_path, constants=constants).check(**CLOSE)


def test_batch_normalization_in_training_mode_is_refused() -> None:
    node = Node("BatchNormalization", ["x3", *STATISTICS], (True,) * 3, {"training_mode": 1})
    model, _ = model_of_nodes([node], {"x3": X3}, CHANNELS, None)
    with pytest.raises(RefusedNodeError, match="training mode"):
        lower_ops(model, [X3] * 3)


@pytest.mark.parametrize("ios", [15, 18])
def test_layer_normalization(tmp_path: Path, ios: int) -> None:
    nodes, constants = [], {}
    for name, x in RANKS.items():
        for axis in range(-x.ndim, x.ndim):
            shape = x.shape[axis % x.ndim :]
            names = [f"{kind}{'_'.join(map(str, shape))}" for kind in "gb"]
            constants |= {names[0]: floats(*shape), names[1]: floats(*shape, seed=1)}
            nodes.append(Node("LayerNormalization", [name, *names], (True,) * 3, {"axis": axis}))
        nodes.append(Node("LayerNormalization", [name, names[0]], (True,), {"epsilon": 0.1}))
    run_nodes(nodes, RANKS, tmp_path, constants=constants, ios=ios).check(**CLOSE)


def test_layer_normalization_with_other_scales(tmp_path: Path) -> None:
    given = {"g": floats(5), "b": floats(5, seed=1), "one": floats(1)}
    ops = [
        Op("LayerNormalization", ["x3", "g", "b"]),
        Op("LayerNormalization", ["x3", "g"]),
        Op("LayerNormalization", ["x3", "cg", "b"]),
        Op("LayerNormalization", ["x3", "g", "cb"]),
    ]
    constants = {"cg": floats(5), "cb": floats(5, seed=2)}
    run_ops(ops, {"x3": X3, **given}, tmp_path, constants=constants).check(**CLOSE)


@pytest.mark.parametrize("constant", [False, True])
def test_instance_and_group_normalization(tmp_path: Path, constant: bool) -> None:
    inputs = {name: x for name, x in RANKS.items() if x.ndim > 2}
    ops = [Op("InstanceNormalization", [x, "c0", "c1"], {"epsilon": e}) for x in inputs for e in (1e-5, 0.1)]
    for x in inputs:
        ops += [Op("GroupNormalization", [x, "c0", "c1"], {"num_groups": g}) for g in (1, 2, 4, 8)]
    given = {name: CHANNELS[name] for name in ("c0", "c1")}
    everything, constants = (inputs, given) if constant else (inputs | given, {})
    run_ops(ops, everything, tmp_path, constants=constants).check(**CLOSE)


def test_root_mean_square(tmp_path: Path) -> None:
    nodes, constants = [], {}
    for name, x in RANKS.items():
        for axis in range(x.ndim):
            shape = x.shape[axis:]
            constants[scale := f"g{'_'.join(map(str, shape))}"] = floats(*shape)
            nodes.append(Node("RMSNormalization", [name, scale], (True,), {"axis": axis}))
            nodes.append(Node("RMSNormalization", [name, scale], (True,), {"axis": axis, "epsilon": 0.5}))
    last = ["x3", "g5"]
    attributes = {"axis": -1, "epsilon": 1e-6, "stash_type": 1}
    nodes.append(Node("SimplifiedLayerNormalization", last, (True,), attributes))
    nodes.append(Node("SimplifiedLayerNormalization", last, (True, True), attributes))
    run_nodes(nodes, RANKS, tmp_path, constants=constants).check(**CLOSE)


@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1e-3, 1.0, 1e4, 1e15])
def test_root_mean_square_of_any_magnitude(tmp_path: Path, scale: float) -> None:
    ops = [Op("RMSNormalization", ["x", "g"], {"epsilon": e}) for e in (1e-12, 1e-6, 1e-5, 0.0)]
    inputs = {"x": floats(4, 64, scale=scale)}
    if scale < 1e-12:
        ops = ops[1:3]  # the squares vanish where nothing is added to them
    run_ops(ops, inputs, tmp_path, constants={"g": floats(64)}).check(rtol=1e-5, atol=1e-30)


def test_squares_do_not_overflow_in_half_precision(tmp_path: Path) -> None:
    ops = [
        Op("RMSNormalization", ["x", "g"]),
        Op("LpNormalization", ["x"]),
        Op("LpNormalization", ["x"], {"p": 1}),
        Op("MeanVarianceNormalization", ["x4"], {"axes": [0, 2, 3]}),
        Op("LayerNormalization", ["x", "g"]),
    ]
    inputs = {"x": floats(4, 512, scale=2000), "x4": floats(2, 3, 8, 8, scale=3000)}
    run = run_ops(ops, inputs, tmp_path, constants={"g": floats(512)}, arithmetic="float16")
    assert np.square(inputs["x"]).max() > np.finfo(np.float16).max
    run.check(**HALF)


def test_zeros_stay_zeros_in_half_precision(tmp_path: Path) -> None:
    ops = [
        Op("RMSNormalization", ["x", "g"], {"epsilon": 1e-6}),
        Op("LpNormalization", ["x"]),
        Op("LpNormalization", ["x"], {"p": 1}),
        Op("MeanVarianceNormalization", ["x4"], {"axes": [0, 2, 3]}),
    ]
    inputs = {"x": np.zeros((2, 16), np.float32), "x4": np.zeros((1, 2, 4, 4), np.float32)}
    run = run_ops(ops, inputs, tmp_path, constants={"g": floats(16)}, arithmetic="float16")
    assert all(not result.any() for result in run.got)


def test_skip_layer_normalization(tmp_path: Path) -> None:
    inputs = {"x": floats(2, 3, 8), "skip": floats(2, 3, 8, seed=1), "row": floats(1, 3, 8, seed=2)}
    full, simple = "com.microsoft.SkipLayerNormalization", "com.microsoft.SkipSimplifiedLayerNormalization"
    summed = (True, False, False, True)
    nodes = [
        Node(full, ["x", "skip", "c0"]),
        Node(full, ["x", "skip", "c0", "c1"], attributes={"epsilon": 1e-5}),
        Node(full, ["x", "skip", "c0", "c1", "c2"], summed),
        Node(full, ["x", "skip", "c0", "", "c2"], summed),
        Node(full, ["x", "row", "c0", "c1"], summed),
        Node(simple, ["x", "skip", "c0"]),
        Node(simple, ["x", "skip", "c0", "c2"], summed, {"epsilon": 1e-6}),
        Node(simple, ["x", "row", "c0"], summed),
    ]
    constants = {name: CHANNELS[name] for name in ("c0", "c1", "c2")}
    run_nodes(nodes, inputs, tmp_path, constants=constants).check(**CLOSE)


def test_norms_along_one_axis(tmp_path: Path) -> None:
    zeros = X3.copy()
    zeros[:, 2] = 0
    ops = [
        Op("LpNormalization", [x], {"p": p, "axis": axis})
        for x, rank in (("x2", 2), ("x3", 3), ("x5", 5))
        for p in (1, 2)
        for axis in (0, 1, -1)
        if axis < rank
    ]
    ops.append(Op("LpNormalization", ["z"], {"axis": 2}))
    ops += [Op("LpNormalization", ["tiny"], {"p": p}) for p in (1, 2)]
    inputs = {**RANKS, "z": zeros, "tiny": floats(2, 4, scale=1e-12)}
    run_ops(ops, inputs, tmp_path).check(**CLOSE)


def test_mean_variance_normalization(tmp_path: Path) -> None:
    ops = [Op("MeanVarianceNormalization", ["x4"])]
    ops += [
        Op("MeanVarianceNormalization", ["x4"], {"axes": axes}) for axes in ([0, 2, 3], [2, 3], [1], [-1])
    ]
    run_ops(ops, {"x4": X4}, tmp_path).check(rtol=1e-4, atol=1e-5)


def test_local_response_normalization(tmp_path: Path) -> None:
    ops = [
        Op("LRN", ["x4"], {"size": size, **attributes})
        for size in (1, 3, 5)
        for attributes in ({}, {"alpha": 0.3, "beta": 0.5, "bias": 2.0})
    ]
    run_ops(ops, {"x4": X4}, tmp_path).check(**CLOSE)


def test_dynamic_batch_and_sequence(tmp_path: Path) -> None:
    inputs = {"x": floats(2, 8, 6), "image": floats(2, 8, 5, 3)}
    axes = {"x": ("b", "s", 6), "image": ("b", 8, "s", 3)}
    constants = {"g": floats(6), "e": floats(6, seed=1), "c0": CHANNELS["c0"], "c1": CHANNELS["c1"]}
    ops = [
        Op("LayerNormalization", ["x", "g", "e"]),
        Op("RMSNormalization", ["x", "g"]),
        Op("InstanceNormalization", ["image", "c0", "c1"]),
        Op("GroupNormalization", ["image", "c0", "c1"], {"num_groups": 4}),
        Op("LpNormalization", ["x"]),
    ]
    run_ops(ops, inputs, tmp_path, constants=constants, axes=axes, dimensions=BATCHES).check(**CLOSE)


REFUSED = [
    (Op("LRN", ["x4"], {"size": 2}), "size=2 is even"),
    (Op("LRN", ["x5"], {"size": 3}), "rank 5"),
    (Op("GroupNormalization", ["x4", "g", "g"], {"num_groups": 3}), "num_groups=3 on 8 channels"),
    (Op("LayerNormalization", ["x4", "g"], {"stash_type": 11}), "stash_type"),
]


@pytest.mark.parametrize(("op", "reason"), REFUSED, ids=str)
def test_refusals(op: Op, reason: str) -> None:
    inputs = {name: array for name, array in RANKS.items() if name in op.inputs}
    assert reason in refusal(op, inputs, {"g": floats(3)} if "g" in op.inputs else {})


def test_the_mean_of_a_root_mean_square_norm_is_refused() -> None:
    node = Node("com.microsoft.SkipSimplifiedLayerNormalization", ["x3", "x3", "g"], (True, True))
    model, _ = model_of_nodes([node], {"x3": X3}, {"g": floats(5)}, None)
    with pytest.raises(RefusedNodeError, match="mean"):
        lower_ops(model, [X3, X3])
