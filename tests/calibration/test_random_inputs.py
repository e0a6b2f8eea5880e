"""Random inputs: seeded, of the declared dtype and shape, with sensible sizes for symbolic dimensions."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from edgeq.calibration.random_inputs import random_inputs
from edgeq.calibration.types import TensorSpec
from edgeq.errors import DataError


def spec(name: str, dtype, *shape: int | str | None) -> TensorSpec:
    return TensorSpec(name, np.dtype(dtype), shape)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 3), (2, 3)),
        ((), ()),
        (("N", 3, 8, 8), (4, 3, 8, 8)),
        (("batch_size", "sequence_length"), (4, 16)),
        ((1, "batch", "T"), (1, 4, 16)),
        ((None, "channels", "height", "width"), (4, 3, 64, 64)),
        (("n", "C", "H", "W"), (4, 3, 64, 64)),
        (("rows", "whatever"), (4, 16)),
        (("batch", 2, "past_sequence_length + 1", 8), (4, 2, 16, 8)),
        (("batch", "blocks"), (4, 5)),
    ],
)
def test_shapes(shape, expected) -> None:
    found = random_inputs([spec("x", np.float32, *shape)], seed=0, batch=4, dims={"blocks": 5})
    assert found["x"].shape == expected


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool"]
)
def test_dtypes(dtype: str) -> None:
    x = random_inputs([spec("x", dtype, 50, 50)], seed=0)["x"]
    assert x.dtype == np.dtype(dtype)
    if dtype.startswith("float"):
        assert abs(float(x.astype(np.float64).mean())) < 0.1
        assert float(x.astype(np.float64).std()) == pytest.approx(1, abs=0.05)
    else:
        assert set(np.unique(x).tolist()) == {0, 1}


def test_bfloat16() -> None:
    x = random_inputs([spec("x", ml_dtypes.bfloat16, 3)], seed=0)["x"]
    assert x.dtype == ml_dtypes.bfloat16


def test_seed_and_name_decide_the_values() -> None:
    a, b = spec("a", np.float32, 5), spec("b", np.float32, 5)
    first = random_inputs([a, b], seed=1)
    assert first.keys() == {"a", "b"}
    assert not np.array_equal(first["a"], first["b"])
    np.testing.assert_array_equal(first["b"], random_inputs([b], seed=1)["b"])
    assert not np.array_equal(first["b"], random_inputs([b], seed=2)["b"])


def test_what_cannot_be_made_up_is_refused() -> None:
    with pytest.raises(DataError) as error:
        random_inputs([TensorSpec("x", np.dtype(np.float32), None)], seed=0)
    assert str(error.value) == (
        "Input 'x' has no declared shape, so no random values can be made for it. "
        "Declare its shape in the model, or give real data."
    )
    with pytest.raises(DataError, match="Input 'words' is of type object"):
        random_inputs([spec("words", np.object_, 1)], seed=0)
