from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.calibration.data import DataOptions, open_data
from edgeq.calibration.data.arrays import read_npz
from edgeq.calibration.data.source import choose, pick
from edgeq.calibration.preprocess import Preprocessing
from edgeq.calibration.types import Array, TensorSpec
from edgeq.errors import DataError
from tests.support.data_files import spec

X = spec(shape=("N", 4))


def refused(data: Any, inputs: list[TensorSpec], message: str, **options: Any) -> None:
    with pytest.raises(DataError) as error:
        list(open_data(data, inputs, options=DataOptions(**options)).batches(4))
    assert str(error.value) == message


def values(rows: int = 5, dtype: Any = np.float32) -> Array:
    return np.arange(rows * 4).reshape(rows, 4).astype(dtype)


@given(size=st.integers(1, 200), limit=st.integers(1, 250), select=st.sampled_from(["spread", "first"]))
def test_choose_gives_increasing_distinct_samples(size: int, limit: int, select: str) -> None:
    chosen = choose(size, limit, select)
    assert len(chosen) == min(size, limit)
    assert chosen[0] == 0
    assert (np.diff(chosen) >= 1).all()
    assert chosen[-1] < size
    assert list(pick(iter(range(size)), chosen)) == chosen.tolist()
    if select == "spread" and limit < size:
        assert np.diff(np.append(chosen, size)).max() - np.diff(np.append(chosen, size)).min() <= 1


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("label", ["label", "labels", "y"])
def test_npz(tmp_path: Path, save: Any, label: str) -> None:
    x = values()
    save(tmp_path / "d.npz", x=x, **{label: np.array([3, 1, 4, 1, 5], np.uint8)})
    source = open_data(tmp_path / "d.npz", [spec("input_1", ("N", 4))])
    batches = list(source.batches(2))
    assert [b.size for b in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([b.inputs["input_1"] for b in batches]), x)
    labels = [b.labels for b in batches if b.labels is not None]
    assert np.concatenate(labels).tolist() == [3, 1, 4, 1, 5]
    assert labels[0].dtype == np.int64
    assert source.task == "classification"
    again = list(source.batches(2))
    np.testing.assert_array_equal(again[0].inputs["input_1"], batches[0].inputs["input_1"])


def test_uncompressed_members_are_mapped(tmp_path: Path) -> None:
    x = np.asfortranarray(values())
    np.savez(tmp_path / "d.npz", x=x, empty=np.zeros((0, 3)), one=np.float64(2))
    arrays = read_npz(tmp_path / "d.npz")
    assert isinstance(arrays["x"], np.memmap)
    np.testing.assert_array_equal(arrays["x"], x)
    assert arrays["empty"].shape == (0, 3)
    assert float(arrays["one"]) == 2


def test_npy_and_memory_agree(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", values())
    from_file = open_data(str(tmp_path / "d.npy"), [X])
    (one,) = from_file.batches(8)
    for data in (values(), {"x": values()}, [{"x": values()}], lambda: [{"x": values()}]):
        (other,) = open_data(data, [X]).batches(8)
        np.testing.assert_array_equal(one.inputs["x"], other.inputs["x"])


def test_several_inputs_by_name_and_by_mapping() -> None:
    inputs = [spec("a", ("N", 4)), spec("b", ("N", 2), "i8")]
    data = {"a": values(3), "other": np.ones((3, 2), np.int32), "x": values(3)}
    (batch,) = open_data(data, inputs, options=DataOptions(columns={"b": "other"})).batches(8)
    assert batch.inputs["b"].dtype == np.int64
    assert batch.inputs["b"].shape == (3, 2)


def test_an_input_called_label_is_no_label() -> None:
    source = open_data({"label": values()}, [spec("label", ("N", 4))])
    assert not source.has_labels


def test_label_array_by_name_and_column_of_labels() -> None:
    data = {"x": values(2), "truth": np.array([[1], [0]])}
    (batch,) = open_data(data, [X], options=DataOptions(labels="truth")).batches(8)
    assert batch.labels is not None
    assert batch.labels.tolist() == [1, 0]


def test_float_labels_are_no_classification() -> None:
    source = open_data({"x": values(2), "y": np.array([0.5, 1.5])}, [X])
    assert (source.has_labels, source.task) == (True, "unknown")


@pytest.mark.parametrize("stored", ["f8", "f2", "u1", "i4"])
def test_conversions_to_float_are_noted(stored: str) -> None:
    source = open_data({"x": values(dtype=stored)}, [X])
    (batch,) = source.batches(8)
    assert batch.inputs["x"].dtype == np.float32
    note = f"Data for input 'x' is {np.dtype(stored)} and was converted to float32."
    assert note in source.describe()["notes"]


def test_preprocessing_of_arrays_is_described() -> None:
    images = np.full((2, 8, 8, 3), 51, np.uint8)
    made = Preprocessing(layout="nchw", array_layout="nhwc", scale=1 / 255)
    source = open_data({"x": images}, [spec()], preprocessing=made)
    (batch,) = source.batches(2)
    np.testing.assert_allclose(batch.inputs["x"], 0.2, rtol=1e-6)
    assert batch.inputs["x"].shape == (2, 3, 8, 8)
    described = json.loads(json.dumps(source.describe()))
    assert Preprocessing.model_validate(described["preprocessing"]) == made
    assert described["assumed"] is False


def test_undeclared_preprocessing_is_said() -> None:
    described = open_data(values(), [X]).describe()
    assert described["assumed"] is True
    assert described["notes"] == ["No preprocessing was declared: values are used as they are stored."]


def test_whole_inputs_run_one_by_one() -> None:
    inputs = [spec("frame", (1, 4)), spec("state", (2, 1, 3)), spec("rate", (), "i8")]
    data = {"frame": values(3), "state": np.ones((3, 2, 1, 3), np.float32), "rate": np.full(3, 16000)}
    source = open_data(data, inputs)
    batches = list(source.batches(8))
    assert [b.size for b in batches] == [1, 1, 1]
    shapes = {name: array.shape for name, array in batches[1].inputs.items()}
    assert shapes == {"frame": (1, 4), "state": (2, 1, 3), "rate": ()}
    assert (
        "Each sample is a whole input for rate, state: samples run one by one." in source.describe()["notes"]
    )


def test_hash_is_of_the_content(tmp_path: Path) -> None:
    one, two = open_data(values(), [X]).describe(), open_data(values() + 1, [X]).describe()
    assert one["sha256"] != two["sha256"]
    assert one == open_data(values(), [X]).describe()


def test_missing_array() -> None:
    refused(
        {"a": values(), "c": values()},
        [spec("a", ("N", 4)), spec("b", ("N", 4))],
        "arrays in memory has no array for the model's input 'b'; it holds: a, c. "
        "Name the array like the input, or map it with the option columns.",
    )


def test_missing_mapped_array() -> None:
    refused(
        {"a": values()},
        [spec("a", ("N", 4))],
        "arrays in memory has no array 'z' for input 'a'; it holds: a. Correct the name in the options.",
        columns={"a": "z"},
    )


def test_lengths_that_differ() -> None:
    refused(
        {"x": values(5), "label": np.zeros(4, np.int64)},
        [X],
        "arrays in memory: arrays have different numbers of samples: x 5, labels 4. "
        "Give every array the same first axis.",
    )


def test_no_samples() -> None:
    refused(values(0), [X], "array in memory holds no samples. Give at least one sample.")


def test_wrong_shape_says_both() -> None:
    refused(
        np.zeros((5, 3), np.float32),
        [X],
        "Data for input 'x' has shape [1, 3], but the model wants [N, 4]. "
        "Give data in the model's shape, or declare preprocessing that makes it fit.",
    )
    refused(
        np.zeros((5, 8, 8, 3), np.float32),
        [spec()],
        "Data for input 'x' has shape [1, 8, 8, 3], but the model wants [N, 3, 8, 8]. "
        "The axes are in another order: declare preprocessing with layout and array_layout.",
    )


def test_float_for_an_integer_input() -> None:
    refused(
        values(),
        [spec(shape=("N", 4), dtype="i8")],
        "Data for input 'x' is float32, but the model wants int64; rounding it would change the data. "
        "Store the array as int64.",
    )


def test_objects_are_refused(tmp_path: Path) -> None:
    refused(
        np.array([[None] * 4]),
        [X],
        "Data for input 'x' is object, but the model wants float32; there is no safe conversion. "
        "Store the array as float32.",
    )
    np.savez(tmp_path / "d.npz", x=np.array([None, 1], dtype=object))
    with pytest.raises(DataError, match=r"cannot be read as \.npz: array x\.npy holds Python objects"):
        open_data(tmp_path / "d.npz", [X])


def test_integer_out_of_range() -> None:
    x = np.zeros((3, 4), np.int64)
    x[2, 1] = 300
    refused(
        x,
        [spec(shape=("N", 4), dtype="u1")],
        "Data for input 'x' holds 300 in sample 2, outside the range of the model's uint8. Correct the data.",
    )


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "Inf"), (-np.inf, "Inf")])
def test_values_that_are_not_finite_name_the_sample(value: float, word: str) -> None:
    x = values(9)
    x[7, 2] = value
    refused(x, [X], f"Data for input 'x' holds {word} in sample 7. Remove or correct that sample.")


def test_sample_is_named_by_its_place_in_the_data_under_a_limit() -> None:
    x = values(90)
    x[60, 0] = np.nan
    with pytest.raises(DataError, match="NaN in sample 60"):
        list(open_data(x, [X]).batches(2, limit=3))


def test_float64_beyond_float32_is_refused() -> None:
    x = values(3, np.float64)
    x[1, 1] = 1e300
    refused(x, [X], "Data for input 'x' holds Inf in sample 1. Remove or correct that sample.")


@pytest.mark.parametrize("labels", [np.array([0, -2, 1]), np.array([0, -2, 1], np.int8)])
def test_negative_label(labels: Array) -> None:
    refused({"x": values(3), "y": labels}, [X], "Label -2 of sample 1 is negative. Labels count from 0.")


def test_labels_that_are_text() -> None:
    refused(
        {"x": values(2), "y": np.array(["a", "b"])},
        [X],
        "Labels of dtype <U1 cannot be used. Give labels as integers from 0, or floats.",
    )


def test_no_axis_of_samples() -> None:
    refused(
        {"x": np.float32(3)},
        [spec(shape=())],
        "arrays in memory: the array for 'x' has no axis of samples. Stack the samples along a first axis.",
    )


@pytest.mark.parametrize("name", ["d.npz", "d.npy"])
@pytest.mark.parametrize("content", [b"", b"junk that is no archive"])
def test_damaged_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name} cannot be read as \.np[yz]: .* Write it again with numpy"):
        open_data(tmp_path / name, [X])


def test_truncated_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((100, 4), np.float32))
    whole = (tmp_path / "d.npz").read_bytes()
    (tmp_path / "d.npz").write_bytes(whole[:800])
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        open_data(tmp_path / "d.npz", [X])


def test_npy_for_a_model_of_two_inputs(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", values())
    with pytest.raises(
        DataError, match=r"holds one array, but the model has 2 inputs\. Use \.npz with: a, b"
    ):
        open_data(tmp_path / "d.npy", [spec("a"), spec("b")])


def test_preprocessing_for_one_of_several_inputs() -> None:
    inputs = [spec("a", ("N", 4)), spec("b", ("N", 4))]
    data = {"a": values(), "b": values()}
    twice = Preprocessing(scale=2.0)
    (batch,) = open_data(data, inputs, preprocessing=twice, options=DataOptions(input="b")).batches(8)
    np.testing.assert_array_equal(batch.inputs["b"], 2 * batch.inputs["a"])
    with pytest.raises(DataError) as error:
        open_data(data, inputs, preprocessing=twice)
    assert str(error.value) == (
        "Preprocessing is for one input, and the model has 2. Set the option input to one of: a, b."
    )
    with pytest.raises(DataError, match="The option input names 'c', which the model does not have"):
        open_data(data, inputs, preprocessing=twice, options=DataOptions(input="c"))


def test_a_source_is_returned_as_it_is() -> None:
    source = open_data(values(), [X])
    assert open_data(source, [X]) is source
