"""Range methods on known distributions, against brute force, and on every odd tensor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeq.calibration.affine import integer_limits, quant_params
from edgeq.calibration.ranges import METHODS, Range, choose_range
from edgeq.calibration.sketch import Sketch
from edgeq.errors import DataError, UsageError

GENERATOR = np.random.default_rng(0)
NORMAL = GENERATOR.standard_normal(200_000).astype(np.float32)
TENSORS = {
    "normal": NORMAL,
    "relu": np.maximum(NORMAL, 0),
    "negative": -np.abs(NORMAL),
    "gelu": NORMAL * 3 / (1 + np.exp(-5.1 * NORMAL)),
    "laplace": GENERATOR.laplace(size=200_000).astype(np.float32),
    "heavy tails": GENERATOR.standard_t(3, size=200_000).astype(np.float32),
    "shifted": NORMAL + 3,
}
ANY_METHOD = pytest.mark.parametrize("method", METHODS)
ANY_SYMMETRY = pytest.mark.parametrize("symmetric", [False, True])


def sketch_of(values: np.ndarray) -> Sketch:
    sketch = Sketch()
    sketch.update(values)
    return sketch


def squared_error(values: np.ndarray, span: Range, bits: int, symmetric: bool) -> float:
    """The real mean squared error of quantizing."""
    dtype = {(8, False): "uint8", (8, True): "int8", (4, False): "uint4", (4, True): "int4"}[bits, symmetric]
    scale, zero_point = quant_params(span, dtype, symmetric)
    quantized = np.clip(np.round(values / np.float64(scale)) + zero_point, *integer_limits(dtype, symmetric))
    return float((((quantized - zero_point) * np.float64(scale) - values) ** 2).mean())


def best_by_brute_force(values: np.ndarray, bits: int, symmetric: bool) -> float:
    low, high = min(values.min(), 0), max(values.max(), 0)
    if symmetric:
        top = max(-low, high)
        spans = [Range(-top * a, top * a) for a in np.geomspace(0.05, 1, 60)]
    else:
        shares = np.geomspace(0.05, 1, 30)
        spans = [Range(low * a, high * b) for a in shares for b in shares]
        spans = list(dict.fromkeys(spans))
    return min(squared_error(values, span, bits, symmetric) for span in spans)


@ANY_SYMMETRY
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", TENSORS)
def test_mse_is_as_good_as_brute_force(name: str, bits: int, symmetric: bool) -> None:
    values = TENSORS[name][:20_000].astype(np.float64)
    span = choose_range(sketch_of(values), "mse", bits=bits, symmetric=symmetric)
    assert squared_error(values, span, bits, symmetric) <= 1.12 * best_by_brute_force(values, bits, symmetric)


@pytest.mark.parametrize("name", TENSORS)
def test_minmax_is_exact_and_contains_zero(name: str) -> None:
    values = TENSORS[name]
    span = choose_range(sketch_of(values), "minmax")
    assert (span.low, span.high) == (min(values.min(), 0), max(values.max(), 0))


@pytest.mark.parametrize("percentile", [90, 99, 99.9, 99.99])
@pytest.mark.parametrize("name", TENSORS)
def test_percentile_keeps_that_share_of_the_values(name: str, percentile: float) -> None:
    values = TENSORS[name]
    span = choose_range(sketch_of(values), "percentile", percentile=percentile)
    slack = 1 + 0.01
    kept = ((values >= span.low * slack) & (values <= span.high * slack)).mean() * 100
    dropped = ((values < span.low / slack) | (values > span.high / slack)).mean() * 100
    assert kept >= percentile - 1e-3
    # Where a tail ends on the far side of 0, the range reaches to 0 and keeps more.
    assert dropped >= (100 - percentile) * (0.49 if name == "shifted" else 0.99) - 1e-3


def test_percentile_leaves_the_bound_of_a_one_sided_tensor_at_zero() -> None:
    assert choose_range(sketch_of(TENSORS["relu"]), "percentile", percentile=99).low == 0
    assert choose_range(sketch_of(TENSORS["negative"]), "percentile", percentile=99).high == 0


def test_percentile_100_is_minmax() -> None:
    sketch = sketch_of(NORMAL)
    assert choose_range(sketch, "percentile", percentile=100) == choose_range(sketch, "minmax")


@pytest.mark.parametrize("method", ["entropy", "mse", "percentile"])
def test_a_single_huge_outlier_is_clipped(method) -> None:
    values = np.append(np.tile(NORMAL, 5), np.float32(60))
    span = choose_range(sketch_of(values), method, percentile=99.999)
    assert 3 < span.high < 30


@ANY_SYMMETRY
def test_auto_is_the_percentile_unless_that_costs_much(symmetric: bool) -> None:
    usual = sketch_of(NORMAL)
    assert choose_range(usual, "auto", symmetric=symmetric) == choose_range(
        usual, "percentile", symmetric=symmetric
    )
    # One value in 200,000 carries nearly all of the signal, as in some transformers.
    massive = sketch_of(np.append(NORMAL, np.float32(1e6)))
    assert choose_range(massive, "percentile", symmetric=symmetric).high < 10
    assert choose_range(massive, "auto", symmetric=symmetric).high == 1e6
    # With 4 bits a percentile of the tails is far too wide.
    best = choose_range(usual, "mse", bits=4, symmetric=symmetric)
    assert choose_range(usual, "auto", bits=4, symmetric=symmetric) == best


@ANY_SYMMETRY
@pytest.mark.parametrize("name", ["normal", "laplace", "heavy tails", "gelu"])
def test_entropy_is_between_a_clipped_body_and_minmax(name: str, symmetric: bool) -> None:
    values = TENSORS[name]
    span = choose_range(sketch_of(values), "entropy", symmetric=symmetric)
    assert np.quantile(np.abs(values), 0.98) < max(-span.low, span.high) <= np.abs(values).max()
    assert (
        squared_error(values, span, 8, symmetric) < 1e-3 * float((values**2).mean()) + 1e-9
        or name == "heavy tails"
    )


@ANY_METHOD
def test_no_method_depends_on_batching_or_on_the_number_of_repeats(method) -> None:
    whole, parts = sketch_of(NORMAL), Sketch()
    for part in np.array_split(NORMAL, 17):
        parts.update(part)
    assert choose_range(whole, method) == choose_range(parts, method)
    tenfold = Sketch.from_bytes(whole.to_bytes())
    for _ in range(9):
        tenfold = tenfold.merge(whole)
    again, once = choose_range(tenfold, method), choose_range(whole, method)
    assert again.high == pytest.approx(once.high, rel=0.02)


@ANY_SYMMETRY
@ANY_METHOD
@pytest.mark.parametrize(
    "values",
    [
        [0.0] * 9,
        [3.0] * 9,
        [-3.0] * 9,
        [1e-42] * 9,
        [-1e-42, 1e-42, 0],
        [3.4e38, -3.4e38, 1],
        [1e38] + [1.0] * 1000,
        [-1e38] + [0.0] * 1000,
        [5.0],
        [1e-30, 1e30],
    ],
)
def test_odd_tensors_give_usable_ranges(values: list[float], method, symmetric: bool) -> None:
    span = choose_range(sketch_of(np.float32(values)), method, symmetric=symmetric)
    assert span.low <= 0 <= span.high
    if symmetric:
        assert span.low == -span.high
    scale, _ = quant_params(span, "int8", symmetric)
    assert np.isfinite(scale)
    assert scale > 0


@given(
    hnp.arrays(
        np.float32, st.integers(1, 60), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
    ),
    st.sampled_from(METHODS),
    st.booleans(),
    st.sampled_from([2, 4, 8]),
)
@settings(max_examples=150, deadline=None)
def test_every_finite_tensor_has_a_range_within_its_extremes(
    values, method, symmetric: bool, bits: int
) -> None:
    span = choose_range(sketch_of(values), method, symmetric=symmetric, bits=bits)
    down, up = max(-float(values.min()), 0.0), max(float(values.max()), 0.0)
    if symmetric:
        down = up = max(down, up)
    assert -down * (1 + 1e-6) <= span.low <= 0
    assert 0 <= span.high <= up * (1 + 1e-6)


@ANY_METHOD
def test_constant_tensors_are_represented_exactly(method) -> None:
    span = choose_range(sketch_of(np.full(100, 3.0)), method)
    assert (span.low, span.high) == (0.0, 3.0)


@ANY_METHOD
def test_all_zero_tensor_has_an_empty_range(method) -> None:
    assert choose_range(sketch_of(np.zeros(5)), method) == Range(0.0, 0.0)


def test_empty_sketch_and_non_finite_values_are_refused_in_words() -> None:
    with pytest.raises(DataError) as error:
        choose_range(Sketch(), "mse", tensor="conv1_out")
    assert str(error.value) == (
        "Tensor 'conv1_out' had no values during calibration. "
        "Give calibration data that reaches it, or leave the tensor in float."
    )
    with pytest.raises(DataError) as error:
        choose_range(sketch_of(np.float32([1, np.nan, np.nan, np.inf])), "minmax", tensor="logits")
    assert str(error.value) == (
        "Tensor 'logits' had 2 NaN and 1 infinite values during calibration. "
        "Check the calibration data and its preprocessing, or leave the tensor in float."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"method": "max"},
            "Unknown range method 'max'. Known methods: auto, minmax, percentile, entropy, mse.",
        ),
        ({"percentile": 50}, "A percentile of 50 is not possible. Give one over 50, up to 100."),
        ({"percentile": 100.1}, "A percentile of 100.1 is not possible. Give one over 50, up to 100."),
        ({"bits": 1}, "Cannot quantize to 1 bits. Give 2 to 16."),
    ],
)
def test_impossible_requests(options, message: str) -> None:
    with pytest.raises(UsageError) as error:
        choose_range(sketch_of(NORMAL), **{"method": "percentile", **options})
    assert str(error.value) == message
