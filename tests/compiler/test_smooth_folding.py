"""Smoothing for targets that fuse elementwise ops: no product stands behind attention or a normalization."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq.compiler.model import Model
from edgeq.compiler.planner import make_plan
from edgeq.compiler.quantize.smooth import ChannelStatistics, find_groups, smooth
from edgeq.compiler.recipe import Recipe
from edgeq.targets.tensorrt.capabilities import capabilities
from edgeq.targets.tensorrt.options import TensorRTOptions
from tests.support.static_models import Node, graph, normal, run

_FUSING = capabilities(TensorRTOptions(backend="tensorrt-rtx"))
_WIDTH, _HEADS = 32, 4
_LOUD = np.where(np.arange(_WIDTH) % 8 == 0, 40, 1).astype(np.float32)


def _model(*, back: tuple[int, ...] = (0, 2, 1, 3)) -> Model:
    """LayerNormalization and self-attention, with loud channels in what both write."""
    nodes: list[Node] = [("LayerNormalization", ["x", "gain", "offset"], ["n"], {})]
    for name in "qkv":
        nodes += [
            ("MatMul", ["n", f"w{name}"], [f"m{name}"], {}),
            ("Add", [f"m{name}", f"b{name}"], [f"a{name}"], {}),
            ("Reshape", [f"a{name}", "heads"], [f"r{name}"], {}),
            ("Transpose", [f"r{name}"], [name], {"perm": [0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]}),
        ]
    nodes += [
        ("MatMul", ["q", "k"], ["scores"], {}),
        ("Softmax", ["scores"], ["p"], {"axis": -1}),
        ("MatMul", ["p", "v"], ["context"], {}),
        ("Transpose", ["context"], ["back"], {"perm": list(back)}),
        ("Reshape", ["back", "joined"], ["c"], {}),
        ("MatMul", ["c", "wo"], ["o"], {}),
        ("Add", ["o", "n"], ["y"], {}),
    ]
    weights: dict[str, Any] = {
        f"w{name}": normal(_WIDTH, _WIDTH, seed=seed, scale=0.05) for seed, name in enumerate("qkvo")
    }
    weights |= {f"b{name}": normal(_WIDTH, seed=9) for name in "qkv"}
    weights["wv"], weights["bv"] = weights["wv"] * _LOUD, weights["bv"] * _LOUD
    weights |= {
        "gain": _LOUD,
        "offset": normal(_WIDTH, seed=7),
        "heads": np.int64([0, 0, _HEADS, _WIDTH // _HEADS]),
        "joined": np.int64([0, 0, _WIDTH]),
    }
    return graph(nodes, {"x": ["n", _HEADS, _WIDTH]}, ["y"], weights)


def _smoothed(model: Model) -> tuple[Model, list[str]]:
    recipe = Recipe(scheme="int8-static")
    result = model.clone()
    plan = make_plan(result, _FUSING, recipe)
    groups = find_groups(result.ir.graph, plan)
    statistics = ChannelStatistics([group.tensor for group in groups])
    seen = model.clone()
    values = {value.name: value for node in seen.ir.graph for value in node.outputs}
    seen.ir.graph.outputs.extend(values[name] for name in statistics.tensors)
    for name, array in zip(statistics.tensors, run(seen, _X, optimize=False)[1:], strict=True):
        statistics.observe(name, array)
    return result, smooth(result, groups, statistics, _FUSING, recipe)


_X = {"x": normal(8, _HEADS, _WIDTH, seed=1)}


def test_factors_behind_attention_go_into_the_projection_of_the_values() -> None:
    model = _model()
    found, done = _smoothed(model)
    assert set(done) == {"n", "c"}
    products = [node.name for node in found.ir.graph if node.op_type == "Mul"]
    assert products == ["n_restored"]
    expected, got = run(model, _X)[0], run(found, _X)[0]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * float(np.abs(expected).max()))


def test_attention_of_another_form_is_not_smoothed_rather_than_taken_apart() -> None:
    """Heads and rows are not put back: channels of the result are no channels of the values."""
    model = _model(back=(0, 1, 2, 3))
    found, done = _smoothed(model)
    assert "c" not in done
    np.testing.assert_allclose(run(found, _X)[0], run(model, _X)[0], rtol=1e-4, atol=1e-3)
