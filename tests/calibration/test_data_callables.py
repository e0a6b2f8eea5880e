from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.calibration.data import DataOptions, open_data
from edgeq.calibration.preprocess import Preprocessing
from edgeq.calibration.types import TensorSpec
from edgeq.errors import DataError
from tests.support.data_files import spec

X = spec(shape=("N", 2))


def items() -> Iterator[dict[str, Any]]:
    for i in range(4):
        yield {"x": np.full((3, 2), i, np.float32), "label": np.array([i, i, i])}


def failing() -> Iterator[dict[str, Any]]:
    yield {"x": np.zeros((1, 2), np.float32)}
    raise RuntimeError("the disk is gone")


def refused(data: Any, message: str) -> None:
    with pytest.raises(DataError) as error:
        list(open_data(data, [X]).batches(2))
    assert str(error.value) == message


def test_by_name_is_read_anew_and_cut_to_the_batch_size() -> None:
    source = open_data(f"{__name__}:items", [X])
    for _ in range(2):
        batches = list(source.batches(2))
        assert [b.size for b in batches] == [2, 1] * 4
    assert (source.size, source.has_labels, source.task) == (None, True, "classification")
    described = source.describe()
    assert described["sha256"] is None
    assert len(described["code_sha256"]) == 64
    assert described["select"] == "first"


@pytest.mark.parametrize(("limit", "sizes"), [(1, [1]), (4, [3, 1]), (7, [3, 3, 1]), (99, [3, 3, 3, 3])])
def test_limit_keeps_the_first(limit: int, sizes: list[int]) -> None:
    assert [b.size for b in open_data(items, [X]).batches(8, limit)] == sizes


def test_a_list_of_dicts_knows_its_size() -> None:
    source = open_data(list(items()), [X])
    assert source.size == 12


def test_preprocessing_applies() -> None:
    (batch, *_) = open_data(items, [X], preprocessing=Preprocessing(mean=(1,))).batches(8)
    assert float(batch.inputs["x"][0, 0]) == -1.0


def test_key_x_or_mapped() -> None:
    data = [{"x": np.zeros((1, 2), np.float32)}]
    (one,) = open_data(data, [spec("input", ("N", 2))]).batches(1)
    (two,) = open_data(data, [spec("input", ("N", 2))], options=DataOptions(columns={"input": "x"})).batches(
        1
    )
    assert list(one.inputs) == list(two.inputs) == ["input"]


def test_an_iterator_can_be_read_only_once() -> None:
    refused(
        items(),
        "generator object is an iterator, which can be read only once. "
        "Give the function that makes it, or a list.",
    )


def test_failure_in_the_users_code_is_told() -> None:
    refused(failing, "function object failed: RuntimeError: the disk is gone. Correct the callable.")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "list object yields nothing. Yield at least one dict of arrays."),
        (
            [np.zeros((1, 2))],
            "list object yields ndarray as item 0, not a dict of arrays. "
            "Yield dicts: input name → array whose first axis is samples.",
        ),
        (
            [{"z": np.zeros((1, 2))}],
            "list object yields no array for the model's input 'x'; it yields: z. "
            "Name the key like the input, or map it with the option columns.",
        ),
        (
            [{"x": np.zeros((2, 2)), "label": np.zeros(3, int)}],
            "list object: the item at sample 0 holds different or no numbers of samples: x 2, labels 3. "
            "The first axis of every array is samples; yield x[None] for a single sample.",
        ),
        (
            [{"x": np.zeros((1, 2)), "label": np.zeros(1, int)}, {"x": np.zeros((1, 2))}],
            "list object yields labels only for some items; sample 1 differs from the first. "
            "Yield a label with every item, or with none.",
        ),
        (
            [{"x": np.zeros((2, 2))}, {"x": np.array([[0, 1], [np.nan, 2]])}],
            "Data for input 'x' holds NaN in sample 3. Remove or correct that sample.",
        ),
        (3.5, "float object is no data: neither a callable nor an iterable of dicts of arrays. "
              "Give a callable that yields dicts of arrays."),
    ],
)  # fmt: skip
def test_refused(data: Any, message: str) -> None:
    refused(data, message)


def test_ragged_lists() -> None:
    with pytest.raises(DataError, match="'x' is no array: "):
        open_data([{"x": [[1, 2], [3]]}], [X])


@pytest.mark.parametrize("name", ["nowhere_at_all:items", f"{__name__}:nothing", "json:"])
def test_names_that_cannot_be_imported(name: str) -> None:
    with pytest.raises(DataError, match=r"cannot be imported|does not exist"):
        open_data(name, [X])


def test_module_that_fails_when_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "edgeq_test_broken.py").write_text("1/0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DataError, match="edgeq_test_broken:make cannot be imported: division by zero"):
        open_data("edgeq_test_broken:make", [X])


def _state_model_inputs() -> list[TensorSpec]:
    return [
        TensorSpec("audio", np.dtype(np.float32), ("batch", 4)),
        TensorSpec("state", np.dtype(np.float32), (2, "batch", 3)),
        TensorSpec("rate", np.dtype(np.int64), ()),
    ]


def _state_item(value: float = 0.0) -> dict[str, np.ndarray[Any, Any]]:
    return {
        "audio": np.full((1, 4), value, np.float32),
        "state": np.zeros((2, 1, 3), np.float32),
        "rate": np.array(16000),
    }


def test_inputs_without_a_common_axis_are_one_inference_per_item() -> None:
    source = open_data([_state_item(0.0), _state_item(1.0), _state_item(2.0)], _state_model_inputs())
    assert source.size == 3
    batches = list(source.batches(8, 2))
    assert [batch.size for batch in batches] == [1, 1]
    assert batches[1].inputs["audio"].tolist() == [[1.0] * 4]
    assert batches[0].inputs["state"].shape == (2, 1, 3)
    assert batches[0].inputs["rate"].shape == ()


def test_nan_in_a_state_names_the_item() -> None:
    broken = _state_item()
    broken["state"][1, 0, 0] = np.nan
    source = open_data([_state_item(), broken], _state_model_inputs())
    with pytest.raises(DataError, match="sample 1"):
        list(source.batches(1))
