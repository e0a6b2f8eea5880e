"""Weights that cannot saturate: the algebra of pairs, and the real kernels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeq.compiler.plan import QuantSpec
from edgeq.compiler.quantize.saturation import PAIR_LIMIT, limit_pairs, pair_scale, worst_pair
from edgeq.compiler.quantize.static_weights import quantize_weight
from tests.support.static_models import Node, Samples, graph, normal, quantize, run, sqnr

CODES = arrays(np.int16, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.integers(-127, 127))


@given(CODES)
def test_limited_pairs_hold_the_limit_and_change_only_offenders(codes: np.ndarray) -> None:
    limited = limit_pairs(codes, codes.astype(np.float32))
    assert worst_pair(limited) <= PAIR_LIMIT
    for row, (before, after) in enumerate(zip(codes, limited, strict=True)):
        for k in range(0, codes.shape[1] - 1, 2):
            if worst_pair(codes[row : row + 1, k : k + 2]) <= PAIR_LIMIT:
                assert (before[k : k + 2] == after[k : k + 2]).all()
    assert (np.sign(limited) * np.sign(codes) >= 0).all()


@settings(max_examples=50)
@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(2, 11)),
        elements=st.floats(-3, 3, width=32),
    )
)
def test_quantized_weights_never_saturate_and_are_near(weights: np.ndarray) -> None:
    made = quantize_weight(
        weights,
        QuantSpec("int8", True, 0),
        (0, 1),
        weights.shape[1],
        floor=np.asarray(1e-30, np.float32),
        pairs=True,
    )
    assert worst_pair(made.codes.astype(np.int16)) <= PAIR_LIMIT
    full = np.maximum(np.abs(weights).max(axis=1) / 127, pair_scale(weights))
    error = np.square(made.dequantized() - weights).sum(axis=1)
    unclipped = np.square(full * 1.01).reshape(-1) * weights.shape[1]
    assert (error <= unclipped + 1e-30).all()


# Outliers in pairs, and inputs at the top of their range: what saturates in vpmaddubsw.
FORMS: dict[str, tuple[list[Node], tuple[int, ...], tuple[int, ...]]] = {
    "conv": ([("Conv", ["x", "w"], ["y"], {})], (16, 8, 8), (8, 16, 3, 3)),
    "pointwise": ([("Conv", ["x", "w"], ["y"], {})], (16, 8, 8), (8, 16, 1, 1)),
    "odd": ([("Conv", ["x", "w"], ["y"], {})], (3, 8, 8), (8, 3, 3, 3)),
    "groups": ([("Conv", ["x", "w"], ["y"], {"group": 2})], (16, 8, 8), (8, 8, 3, 3)),
    "multiplier": ([("Conv", ["x", "w"], ["y"], {"group": 8})], (8, 8, 8), (16, 1, 3, 3)),
    "depthwise": ([("Conv", ["x", "w"], ["y"], {"group": 8})], (8, 8, 8), (8, 1, 3, 3)),
    "1d": ([("Conv", ["x", "w"], ["y"], {})], (16, 12), (8, 16, 3)),
    "gemm": ([("Gemm", ["x", "w"], ["y"], {"transB": 1})], (64,), (8, 64)),
    "matmul": ([("MatMul", ["x", "w"], ["y"], {})], (5, 64), (64, 8)),
}


@pytest.mark.parametrize("form", list(FORMS))
def test_the_integer_kernels_compute_what_the_graph_says(form: str) -> None:
    nodes, shape, kernel = FORMS[form]
    # Constant signs: rounding to the largest codes in every pair.
    weights = np.abs(normal(*kernel, seed=1)) * 0.1 + 1
    model = graph(nodes, {"x": ["n", *shape]}, ["y"], {"w": weights.astype(np.float32)})
    x = np.abs(normal(8, *shape)) * 0.1 + 1
    result = quantize(model, Samples(x=x.astype(np.float32)), bias_correction=False)
    fast = run(result.model, {"x": x.astype(np.float32)})[0]
    exact = run(result.model, {"x": x.astype(np.float32)}, optimize=False)[0]
    step = float(result.params["y"].scale) if "y" in result.params else np.abs(exact).max() * 1e-5
    assert np.abs(fast - exact).max() <= step * 1.001
    assert sqnr(run(model, {"x": x.astype(np.float32)})[0], fast) > 35


def test_without_the_guard_rounding_is_finer_where_nothing_saturates() -> None:
    weights = normal(32, 64, seed=4)
    floor = np.asarray(1e-30, np.float32)
    made = {
        pairs: quantize_weight(weights, QuantSpec("int8", True, 0), (0, 1), 64, floor=floor, pairs=pairs)
        for pairs in (True, False)
    }
    loss = [sqnr(weights, m.dequantized()) for m in made.values()]
    assert loss[0] < loss[1] < loss[0] + 3
