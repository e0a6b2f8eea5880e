"""The sketch: exact counts, quantiles to under 1 %, merging in any order, a stable form."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeq.calibration.kernel_llvm import compiled_kernel
from edgeq.calibration.kernels import (
    BUCKETS,
    COMPILED_PAYS_FROM,
    Kernel,
    choose_kernel,
    numpy_kernel,
)
from edgeq.calibration.sketch import Sketch, merge_all
from edgeq.errors import DataError

KERNELS = pytest.mark.parametrize("kernel", [numpy_kernel, compiled_kernel()], ids=["numpy", "compiled"])
# Drawn in parts: leaving the subnormals out of one range filters so many draws that hypothesis gives up.
TINY, HUGE = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
NORMAL = st.sampled_from([0.0, -0.0]) | st.floats(TINY, HUGE, width=32) | st.floats(-HUGE, -TINY, width=32)
ARRAYS = hnp.arrays(np.float32, st.integers(0, 300), elements=NORMAL)


def sketch_of(*arrays: np.ndarray, kernel: Kernel = numpy_kernel) -> Sketch:
    sketch = Sketch()
    for array in arrays:
        sketch.update(array, kernel=kernel)
    return sketch


@KERNELS
@pytest.mark.parametrize("size", [1, 7, 8, 9, 15, 2047, 2048, 2055, 4099])
@pytest.mark.parametrize("sign", [1, 0, -1])
def test_counts_and_extremes_are_exact(kernel: Kernel, size: int, sign: int) -> None:
    values = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    values = values if sign == 0 else sign * np.abs(values)
    sketch = sketch_of(values, kernel=kernel)
    expected = np.bincount(values.view(np.uint32) >> 16, minlength=BUCKETS)
    np.testing.assert_array_equal(sketch.counts, expected)
    assert (sketch.count, sketch.min, sketch.max) == (size, values.min(), values.max())


@given(ARRAYS)
def test_both_kernels_count_the_same(values: np.ndarray) -> None:
    assert sketch_of(values) == sketch_of(values, kernel=compiled_kernel())


@given(ARRAYS.filter(lambda a: a.size > 0), st.floats(0, 1))
def test_quantiles_are_exact_to_under_one_percent(values: np.ndarray, q: float) -> None:
    ordered = np.sort(values.astype(np.float64))
    position = q * (values.size - 1)
    ends = ordered[[int(np.floor(position)), int(np.ceil(position))]]
    exact = ends[0] + (ends[1] - ends[0]) * (position - np.floor(position))
    # Between two order statistics of opposite sign numpy interpolates through 0: relative to the larger one.
    assert abs(sketch_of(values).quantile(q) - exact) <= 0.01 * np.abs(ends).max()


@pytest.mark.parametrize("q", [0.0001, 0.01, 0.5, 0.99, 0.9999])
@pytest.mark.parametrize("shape", ["normal", "laplace", "lognormal", "cauchy"])
def test_quantiles_of_large_samples(shape: str, q: float) -> None:
    generator = np.random.default_rng(1)
    draw = getattr(generator, "standard_" + shape, None) or getattr(generator, shape)
    values = draw(size=200_000).astype(np.float32)
    assert sketch_of(values).quantile(q) == pytest.approx(float(np.quantile(values, q)), rel=0.01, abs=1e-4)


@given(ARRAYS, ARRAYS, ARRAYS)
@settings(max_examples=50)
def test_merging_is_associative_and_commutative(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    x, y, z = sketch_of(a), sketch_of(b), sketch_of(c)
    assert x.merge(y) == y.merge(x)
    assert x.merge(y).merge(z) == x.merge(y.merge(z))
    assert merge_all([x, y, z]) == sketch_of(c, a, b) == sketch_of(np.concatenate([a, b, c]))


def test_merging_changes_neither_part() -> None:
    a, b = sketch_of(np.ones(3)), sketch_of(np.zeros(2))
    before = a.to_bytes(), b.to_bytes()
    a.merge(b).update(np.full(4, 7.0))
    assert (a.to_bytes(), b.to_bytes()) == before
    assert merge_all([]) == Sketch()


@given(ARRAYS)
@settings(max_examples=50)
def test_bytes_round_trip(values: np.ndarray) -> None:
    sketch = sketch_of(values, np.array([np.nan, np.inf, -np.inf]))
    back = Sketch.from_bytes(sketch.to_bytes())
    assert back == sketch
    assert (back.min, back.max, back.nan, back.inf) == (sketch.min, sketch.max, 1, 2)
    back.update(values)
    assert back.count == 2 * values.size


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b"", "This is no calibration sketch. Collect the statistics again."),
        (lambda b: b"ABCD" + b[4:], "This is no calibration sketch. Collect the statistics again."),
        (
            lambda b: b[:4] + b"\x09\x00" + b[6:],
            "Unknown calibration sketch version 9. Use the edgeq that wrote it.",
        ),
        (lambda b: b[:-1], "The calibration sketch is truncated. Collect the statistics again."),
    ],
)
def test_damaged_bytes_are_refused(damage, message: str) -> None:
    with pytest.raises(DataError) as error:
        Sketch.from_bytes(damage(sketch_of(np.arange(5.0)).to_bytes()))
    assert str(error.value) == message


@KERNELS
def test_non_finite_values_are_counted_apart(kernel: Kernel) -> None:
    # A NaN whose payload is in its low bits shares its top 16 bits with infinity.
    sly = np.array([0x7F800001, 0xFF800001], np.uint32).view(np.float32)
    values = np.concatenate(
        [np.arange(-20, 20, dtype=np.float32), sly, np.float32([np.nan, np.inf, -np.inf, -np.inf])]
    )
    sketch = sketch_of(values, kernel=kernel)
    assert (sketch.nan, sketch.inf, sketch.non_finite) == (3, 3, 6)
    assert (sketch.count, sketch.min, sketch.max) == (40, -20, 19)
    assert sketch == sketch_of(values[:40]).merge(sketch_of(values[40:]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint8, np.bool_])
@pytest.mark.parametrize(
    "view",
    [
        lambda a: a,
        lambda a: a[::2, 1:],
        lambda a: a.T,
        lambda a: np.asfortranarray(a),
        lambda a: a[:, :, None],
    ],
)
def test_any_dtype_and_memory_layout(dtype, view) -> None:
    array = view(np.random.default_rng(2).integers(0, 5, (6, 8)).astype(dtype))
    sketch = sketch_of(array, kernel=compiled_kernel())
    assert (sketch.count, sketch.zeros) == (array.size, int((array == 0).sum()))
    assert (sketch.min, sketch.max) == (array.min(), array.max())


def test_odd_inputs() -> None:
    sketch = sketch_of(np.zeros((0, 3), np.float32), np.float64([1e300, 1.0]), np.array(-0.0, np.float32))
    assert (sketch.count, sketch.inf, sketch.zeros, sketch.min, sketch.max) == (2, 1, 1, 0.0, 1.0)
    assert not np.signbit(sketch.min)
    with pytest.raises(DataError, match="Complex values"):
        sketch.update(np.ones(2, np.complex64))


def test_empty_sketch_has_no_distribution() -> None:
    assert (Sketch().count, Sketch().zeros, Sketch().min, Sketch().max) == (0, 0, np.inf, -np.inf)
    with pytest.raises(DataError, match="No value was seen"):
        Sketch().quantile(0.5)


def test_counters_do_not_overflow() -> None:
    sketch = sketch_of(np.ones(8, np.float32))
    sketch._lanes[0, 0x3F80] = 2**32 - 1 - 4  # as if billions of ones had come before
    sketch._pending = 2**32 - 1 - 4
    sketch.update(np.ones(100, np.float32), kernel=compiled_kernel())
    sketch.update(np.zeros(1, np.float32))
    assert int(sketch.counts[0x3F80]) == 2**32 - 1 - 4 + 100
    assert Sketch.from_bytes(sketch.to_bytes()) == sketch


def test_histogram_is_ordered_and_complete() -> None:
    values = np.float32([-3.3e38, -2, -1e-30, 0, 0, 1e-44, 5e-38, 1, 1.001, 3.4e38])
    histogram = sketch_of(values).histogram()
    assert histogram.total == values.size
    assert (np.diff(histogram.middle) > 0).all()
    assert (histogram.low <= histogram.high).all()
    assert histogram.low[0] == values[0]
    assert histogram.high[-1] == values[-1]
    assert histogram.counts[(histogram.low <= 0) & (histogram.high >= 0)].tolist() == [3]
    np.testing.assert_allclose(histogram.cumulative(np.array([-4e38, 0.5, 4e38])), [0, 7, 10])


def test_histogram_mean() -> None:
    values = np.random.default_rng(3).gamma(2, 3, 10_000).astype(np.float32)
    assert sketch_of(values).histogram().mean() == pytest.approx(values.mean(), rel=0.004)


def test_the_kernel_is_compiled_only_when_that_pays() -> None:
    assert choose_kernel(COMPILED_PAYS_FROM - 1) is numpy_kernel
    assert choose_kernel(COMPILED_PAYS_FROM) is choose_kernel(None) is compiled_kernel()


STATM = Path("/proc/self/statm")


@pytest.mark.skipif(not STATM.exists(), reason="reads the resident memory from Linux")
def test_a_sketch_takes_little_memory() -> None:
    """Only the pages of the counters that values fall into are taken."""

    def resident() -> int:
        return int(STATM.read_text().split()[1]) * resource.getpagesize()

    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    before = resident()
    sketches = [sketch_of(values, kernel=compiled_kernel()) for _ in range(200)]
    assert (resident() - before) / len(sketches) < 300_000
