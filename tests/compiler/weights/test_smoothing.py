"""SmoothQuant: what it takes away of the error of INT8 products, and what it leaves as it is."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeq.compiler.weights.folding import Fold, apply_fold, storable_scales
from edgeq.compiler.weights.grid import GridRules
from edgeq.compiler.weights.rtn import quantize_rtn
from edgeq.compiler.weights.sampling import RowSample
from edgeq.compiler.weights.smoothing import integer_error, smoothing_scales
from edgeq.compiler.weights.spec import PER_CHANNEL, Floats, WeightSpec
from edgeq.compiler.weights.statistics import InputStatistics
from tests.support.layer_inputs import weight_of

SPEC = WeightSpec(8, PER_CHANNEL)


def seen(inputs: Floats, limit: int = 512) -> InputStatistics:
    found = InputStatistics.empty(inputs.shape[1], hessian=False, sampled=limit)
    found.update(inputs)
    return found


def loud(channels: int = 96, tokens: int = 300) -> Floats:
    """Inputs of which three channels are 50 times as large as others."""
    found = np.random.default_rng(3).standard_normal((tokens, channels)).astype(np.float32)
    found[:, [5, 40, 77]] *= 50
    return found


def error(weight: Floats, inputs: Floats) -> float:
    return integer_error(weight, quantize_rtn(weight, SPEC, GridRules()), seen(inputs))


def test_loud_channels_are_quietened() -> None:
    inputs, weights = loud(), [weight_of(64, 96, seed=2), weight_of(16, 96, seed=3)]
    found = smoothing_scales(weights, seen(inputs), [SPEC, SPEC], GridRules())
    assert found.strength
    assert found.scales.max() > 1 > found.scales.min() > 0
    assert set(np.argsort(found.scales)[-3:]) == {5, 40, 77}
    for weight in weights:
        assert error(weight * found.scales, inputs / found.scales) < 0.25 * error(weight, inputs)


def test_nothing_is_scaled_where_nothing_helps() -> None:
    """All channels of inputs and weights are equally large."""
    signs = np.random.default_rng(0).choice(np.float32([-1, 1]), (64, 32))
    found = smoothing_scales([signs[:8]], seen(signs), [SPEC], GridRules())
    np.testing.assert_array_equal(found.scales, 1)
    assert found.strength == 0


def test_channels_that_share_a_source_share_their_scale() -> None:
    shared = np.arange(96) % 48
    found = smoothing_scales([weight_of(64, 96)], seen(loud()), [SPEC], GridRules(), shared)
    np.testing.assert_array_equal(found.scales[:48], found.scales[48:])
    assert found.strength


def test_channels_without_inputs_and_weights() -> None:
    inputs, weight = loud(), weight_of(64, 96)
    inputs[:, 9], weight[:, 30] = 0, 0
    found = smoothing_scales([weight], seen(inputs), [SPEC], GridRules())
    assert np.isfinite(found.scales).all()
    assert (found.scales > 0).all()


@given(st.lists(st.integers(0, 40), max_size=5), st.integers(1, 70), st.randoms(use_true_random=False))
def test_shards_merge_into_the_whole(cuts: list[int], limit: int, random: Any) -> None:
    inputs = np.random.default_rng(1).standard_normal((40, 6)).astype(np.float32)
    inputs[7] = inputs[3]
    parts = np.split(inputs, sorted(cuts))
    random.shuffle(parts)
    merged = InputStatistics.empty(6, hessian=False, sampled=limit)
    for part in parts:
        merged.merge(seen(part, limit))
    whole = seen(inputs, limit)
    assert merged.tokens == whole.tokens
    np.testing.assert_array_equal(merged.largest, whole.largest)
    assert merged.sample is not None
    assert whole.sample is not None
    np.testing.assert_array_equal(merged.sample.rows, whole.sample.rows)
    assert len(whole.sample.rows) == min(limit, 39)


def test_samples_are_spread_over_all_inputs() -> None:
    sample = RowSample.empty(2, 200)
    rows = np.random.default_rng(0).standard_normal((4000, 2)).astype(np.float32)
    rows[:, 0] = np.arange(4000)
    for part in np.split(rows, 8):
        sample.update(part)
    assert len(sample.rows) == 200
    counts = np.histogram(sample.rows[:, 0], bins=4, range=(0, 4000))[0]
    assert counts.min() > 25


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_divided_norms_are_exact_in_their_type(dtype: Any) -> None:
    generator = np.random.default_rng(0)
    with torch.inference_mode():
        layer = torch.nn.ModuleDict({"norm": torch.nn.RMSNorm(64), "reader": torch.nn.Linear(64, 8)})
        layer["norm"].weight.copy_(torch.from_numpy(generator.uniform(0.5, 2, 64).astype(np.float32)))
        layer["norm"].weight[7] = 0
        wanted = np.exp(generator.standard_normal(64)).astype(np.float32)
        fold = Fold("norm", ("reader",))
        scales = storable_scales(layer, fold, wanted, np.dtype(dtype))
        np.testing.assert_allclose(scales, wanted, rtol=2**-8)
        x = torch.from_numpy(generator.standard_normal((5, 64)).astype(np.float32))
        before = layer["reader"](layer["norm"](x))
        apply_fold(layer, fold, scales)
        stored = layer["norm"].weight.numpy().astype(dtype).astype(np.float32)
        layer["norm"].weight.copy_(torch.from_numpy(stored))
        torch.testing.assert_close(layer["reader"](layer["norm"](x)), before, rtol=1e-5, atol=1e-5)
