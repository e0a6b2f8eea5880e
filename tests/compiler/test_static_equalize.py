"""Evening out the channels between linear layers: the float function stays, rounding loses less."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model
from edgeq.compiler.planner import make_plan
from edgeq.compiler.quantize.channel_classes import ChannelClasses
from edgeq.compiler.quantize.channel_noise import ChannelHistograms, scaled_noise
from edgeq.compiler.quantize.equalize import Equalizer
from edgeq.compiler.recipe import Recipe
from edgeq.targets.onnxruntime.capabilities import CAPABILITIES
from tests.support.static_models import Samples, graph, normal, quantize, run, sqnr

RECIPE = Recipe(scheme="int8-static")
CAPS = dataclasses.replace(CAPABILITIES, saturates=False)
UNEVEN = np.array([1, 1, 1, 1, 0.02, 0.02, 0.02, 0.02], np.float32)


def histograms(equalizer: Equalizer, model: Model, data: Array) -> ChannelHistograms:
    """From the values that the float model gives to every tensor the equalizer asks for."""
    found = ChannelHistograms(equalizer.axes)
    watched = model.clone()
    values = {v.name: v for node in watched.ir.graph for v in node.outputs}
    watched.ir.graph.outputs.extend(v for n in equalizer.axes if not (v := values[n]).is_graph_output())
    names = [output.name for output in watched.ir.graph.outputs]
    for name, array in zip(names, run(watched, {"x": data}, optimize=False), strict=True):
        if name in equalizer.axes:
            found.observe(name, array)
    return found


def equalized(model: Model, data: Array) -> tuple[Model, int]:
    copy = model.clone()
    equalizer = Equalizer(copy, make_plan(copy, CAPS, RECIPE), CAPS)
    return copy, equalizer.apply(histograms(equalizer, copy, data), RECIPE)


def chain(*between: tuple[str, dict[str, Any]], group: int = 1) -> Model:
    """Conv, some ops, Conv: 8 uneven channels in between."""
    nodes: list[Any] = [("Conv", ["x", "w1", "b1"], ["t0"], {"pads": [1, 1, 1, 1]})]
    for index, (op, attributes) in enumerate(between):
        nodes.append((op, [f"t{index}"], [f"t{index + 1}"], attributes))
    attributes = {"pads": [1, 1, 1, 1], "group": group}
    nodes.append(("Conv", [f"t{len(between)}", "w2", "b2"], ["y"], attributes))
    weights: dict[str, Array] = {
        "w1": normal(8, 3, 3, 3, seed=1) * UNEVEN[:, None, None, None],
        "b1": normal(8, seed=2) * UNEVEN,
        "w2": normal(8, 8 // group, 3, 3, seed=3) / (1 if group == 1 else UNEVEN[:, None, None, None]),
        "b2": normal(8, seed=4),
    }
    return graph(nodes, {"x": ["N", 3, 12, 12]}, ["y"], weights)


@pytest.mark.parametrize(
    "between",
    [
        [("Relu", {})],
        [("LeakyRelu", {"alpha": 0.1})],
        [("Relu", {}), ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]})],
        [("Relu", {}), ("AveragePool", {"kernel_shape": [2, 2]})],
    ],
)
@pytest.mark.parametrize("group", [1, 8])
def test_the_float_function_stays(between: list[Any], group: int) -> None:
    model, data = chain(*between, group=group), normal(8, 3, 12, 12)
    scaled, changed = equalized(model, data)
    assert changed > 0
    wanted, got = (run(m, {"x": data}, optimize=False)[0] for m in (model, scaled))
    assert sqnr(wanted, got) > 110


@pytest.mark.parametrize("op", ["Sigmoid", "Tanh", "Softplus"])
def test_other_functions_fix_their_channels(op: str) -> None:
    assert equalized(chain((op, {})), normal(8, 3, 12, 12))[1] == 0


def test_a_graph_output_fixes_its_channels() -> None:
    model = chain(("Relu", {}))
    model.ir.graph.outputs.append(next(v for n in model.ir.graph for v in n.outputs if v.name == "t1"))
    assert Equalizer(model, make_plan(model, CAPS, RECIPE), CAPS).axes == {}


def test_depthwise_layers_lose_no_levels() -> None:
    model, data = chain(("Relu", {}), group=8), normal(64, 3, 12, 12)
    wanted = run(model, {"x": data})[0]
    with_it, without = (
        run(quantize(model, Samples(x=data), smoothing=on).model, {"x": data})[0] for on in (True, False)
    )
    assert sqnr(wanted, with_it) > sqnr(wanted, without) + 6


def residual() -> Model:
    nodes: list[Any] = [
        ("Conv", ["x", "w1", "b"], ["c1"], {}),
        ("Relu", ["c1"], ["r1"], {}),
        ("Conv", ["r1", "w2", "b"], ["c2"], {}),
        ("Add", ["c2", "r1"], ["a"], {}),
        ("Relu", ["a"], ["r2"], {}),
        ("Conv", ["x", "w3", "b"], ["c3"], {}),
        ("Concat", ["r2", "c3"], ["k"], {"axis": 1}),
        ("GlobalAveragePool", ["k"], ["g"], {}),
        ("Flatten", ["g"], ["f"], {}),
        ("Gemm", ["f", "w4", "b4"], ["y"], {"transB": 1}),
    ]
    weights: dict[str, Array] = {
        f"w{i}": normal(8, 8, 1, 1, seed=i) * UNEVEN[:, None, None, None] for i in (1, 2, 3)
    }
    weights |= {"b": normal(8), "w4": normal(5, 16), "b4": normal(5)}
    return graph(nodes, {"x": ["N", 8, 6, 6]}, ["y"], weights)


def test_additions_join_channels_and_concatenations_line_them_up() -> None:
    found = ChannelClasses(residual().ir.graph)
    roots, free = found.classes()
    of = {name: roots[channels.elements].tolist() for name, channels in found.tensors.items()}
    assert of["c1"] == of["c2"] == of["a"] == of["r2"]
    assert of["k"] == of["r2"] + of["c3"]
    assert of["f"] == of["k"]
    assert free[roots[found.tensors["k"].elements]].all()
    assert not free[found.tensors["y"].elements].any()


def test_residual_models_keep_their_function() -> None:
    model, data = residual(), normal(16, 8, 6, 6)
    scaled, changed = equalized(model, data)
    assert changed > 0
    wanted, got = (run(m, {"x": data}, optimize=False)[0] for m in (model, scaled))
    assert sqnr(wanted, got) > 110


def test_matrix_products_keep_their_function() -> None:
    nodes: list[Any] = [
        ("MatMul", ["x", "w1"], ["m"], {}),
        ("Relu", ["m"], ["r"], {}),
        ("MatMul", ["r", "w2"], ["y"], {}),
    ]
    uneven = np.tile(UNEVEN, 4)
    weights = {"w1": normal(16, 32) * uneven, "w2": normal(32, 4, seed=1)}
    model, data = graph(nodes, {"x": ["N", 5, 16]}, ["y"], weights), normal(16, 5, 16)
    scaled, changed = equalized(model, data)
    assert changed == 1
    assert sqnr(*(run(m, {"x": data}, optimize=False)[0] for m in (model, scaled))) > 110


def test_even_channels_are_left_alone() -> None:
    nodes: list[Any] = [("Conv", ["x", "w1"], ["c"], {}), ("Conv", ["c", "w2"], ["y"], {})]
    weights = {"w1": np.eye(8, dtype=np.float32)[:, :, None, None], "w2": normal(4, 8, 1, 1)}
    model = graph(nodes, {"x": ["N", 8, 16, 16]}, ["y"], weights)
    assert equalized(model, normal(32, 8, 16, 16))[1] == 0


def test_the_noise_is_that_of_rounding() -> None:
    x = np.random.default_rng(0).uniform(0, 1, (64, 3, 32, 32)).astype(np.float32)
    x *= np.array([1, 0.5, 0.125], np.float32)[:, None, None]
    found = ChannelHistograms({"x": 1})
    found.observe("x", x)
    counts = found.counts["x"]
    steps = np.array([0, -4, -12])
    scaled = x / (2.0 ** (steps / 4)).astype(np.float32)[:, None, None]
    rounded = np.rint(scaled * 255) / 255
    real = float(np.square(rounded - scaled).mean(axis=(0, 2, 3)).sum())
    shares = counts / counts.sum(axis=1, keepdims=True)
    assert scaled_noise(shares, np.ones(3), steps, 255) == pytest.approx(real, rel=0.1)
    assert not found.negative["x"]


def test_no_smoothing_means_no_equalization() -> None:
    model, data = chain(("Relu", {})), Samples(x=normal(16, 3, 12, 12))
    notes = [quantize(model, data, smoothing=on).notes for on in (True, False)]
    assert [any(n.startswith("Equalization") for n in found) for found in notes] == [True, False]
