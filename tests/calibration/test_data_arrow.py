from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from edgeq.calibration.data import DataOptions, open_data
from edgeq.calibration.data.arrow import to_array
from edgeq.calibration.preprocess import Preprocessing
from edgeq.calibration.types import Batch
from edgeq.errors import DataError
from tests.support.data_files import spec, text_inputs, write_tokenizer

NONE = Preprocessing()


def encoded(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (value, value, value)).save(file, "png")
    return file.getvalue()


def write(path: Path, columns: dict[str, Any], row_group_size: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


def only(source: Any) -> Batch:
    (batch,) = source.batches(100)
    assert isinstance(batch, Batch)
    return batch


def message(path: Path, inputs: Any, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        list(open_data(path, inputs, options=DataOptions(**options)).batches(4))
    return str(error.value).replace(str(path.parent), "ROOT")


@pytest.mark.parametrize("wrapped", [True, False])
def test_images(tmp_path: Path, wrapped: bool) -> None:
    images = [encoded(i) for i in range(7)]
    column: list[Any] = [{"bytes": b, "path": None} for b in images] if wrapped else images
    path = write(tmp_path / "d.parquet", {"img": column, "label": [0, 1, 2, 3, 4, 5, 6]})
    source = open_data(path, [spec("pixels")], preprocessing=NONE)
    batches = list(source.batches(4))
    assert [b.size for b in batches] == [4, 3]
    assert np.concatenate([b.inputs["pixels"][:, 0, 0, 0] for b in batches]).tolist() == list(range(7))
    assert [b.labels.tolist() for b in batches if b.labels is not None] == [[0, 1, 2, 3], [4, 5, 6]]
    spread = [b.labels.tolist() for b in source.batches(4, limit=3) if b.labels is not None]
    assert spread == [[0, 2, 4]]
    json.dumps(source.describe())


def test_undeclared_preprocessing_is_assumed_and_said(tmp_path: Path) -> None:
    source = open_data(write(tmp_path / "d.parquet", {"image": [encoded(51)]}), [spec()])
    np.testing.assert_allclose(only(source).inputs["x"], 0.2, rtol=1e-6)
    described = source.describe()
    assert described["assumed"] is True
    assert described["notes"][0].startswith("No preprocessing was declared: assumed NCHW")


def test_arrays_in_several_files(tmp_path: Path) -> None:
    x = np.arange(24, dtype=np.float32).reshape(6, 2, 2)
    for i in range(2):
        write(tmp_path / "train" / f"{i}.parquet", {"a": x[3 * i : 3 * i + 3].tolist(), "b": [i, i, i]})
    inputs = [spec("a", ("N", 2, 2)), spec("b", ("N",), "i8")]
    batch = only(open_data(tmp_path / "train", inputs))
    np.testing.assert_array_equal(batch.inputs["a"], x)
    assert batch.inputs["b"].tolist() == [0, 0, 0, 1, 1, 1]


def test_fixed_size_lists_and_slices() -> None:
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(12, dtype=np.int32)), 3)
    np.testing.assert_array_equal(to_array(column.slice(1, 2)), [[3, 4, 5], [6, 7, 8]])
    lists = pa.chunked_array([[[1.0, 2.0]], [[3.0, 4.0]]])
    np.testing.assert_array_equal(to_array(lists), [[1, 2], [3, 4]])


def test_text(tmp_path: Path) -> None:
    path = write(tmp_path / "d.parquet", {"sentence": ["a", "b c"], "label": ["no", "yes"], "id": ["p", "q"]})
    options = DataOptions(tokenizer=write_tokenizer(tmp_path))
    source = open_data(path, text_inputs("input_ids", "attention_mask"), options=options)
    batch = only(source)
    assert batch.inputs["input_ids"].tolist() == [[1, 4, 2, 0], [1, 5, 6, 2]]
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 1]
    assert source.describe()["classes"] == ["no", "yes"]
    assert source.task == "classification"


def test_datasets_folder_with_images_and_arrays(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "grid": datasets.Array2D((2, 3), "float32"),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
        }
    )
    rows = {
        "image": [{"bytes": encoded(i), "path": None} for i in range(5)],
        "grid": [np.full((2, 3), i, np.float32) for i in range(5)],
        "label": [0, 1, 0, 1, 1],
    }
    made = datasets.Dataset.from_dict(rows, features=features)
    made.save_to_disk(str(tmp_path / "one"), num_shards=2)
    batch = only(open_data(tmp_path / "one", [spec()], preprocessing=NONE))
    assert batch.inputs["x"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 1, 0, 1, 1]
    grid = only(open_data(tmp_path / "one", [spec("grid", ("N", 2, 3))]))
    assert grid.inputs["grid"][:, 1, 2].tolist() == [0, 1, 2, 3, 4]

    datasets.DatasetDict({"test": made, "train": made}).save_to_disk(str(tmp_path / "two"))
    assert message(tmp_path / "two", [spec()]) == (
        "ROOT/two holds several splits and the option split was not named. Splits: test, train."
    )
    split = open_data(tmp_path / "two", [spec()], preprocessing=NONE, options=DataOptions(split="test"))
    assert split.size == 5


def test_ragged_and_empty_rows(tmp_path: Path) -> None:
    ragged = write(tmp_path / "r.parquet", {"x": [[1.0, 2.0], [3.0]]})
    assert message(ragged, [spec(shape=("N", 2))]) == (
        "ROOT, rows 0 to 1: lists have different lengths (1 to 2). "
        "Give every row the same shape, without empty values."
    )
    empty = write(tmp_path / "e.parquet", {"x": [[1.0, 2.0], None]})
    assert "a value is empty" in message(empty, [spec(shape=("N", 2))])
    words = write(tmp_path / "w.parquet", {"x": ["a", "b"]})
    assert "values of type string are no numbers" in message(words, [spec(shape=("N",))])


@pytest.mark.parametrize(
    ("columns", "options", "expected"),
    [
        ({"a": [1.0]}, {}, "ROOT has no column for the model's input 'x'; its columns are: a. "
         "Name the column like the input, or map it with the option columns."),
        ({"x": [[1.0, 2.0]]}, {"labels": "y"},
         "ROOT has no label column 'y'; its columns are: x. Correct the option labels."),
        ({"x": [[1.0, 2.0]], "label": pa.array([None], pa.int64())}, {},
         "ROOT: row 0 has no label. Complete it."),
        ({"x": [[1.0, float("nan")]]}, {},
         "Data for input 'x' holds NaN in sample 0. Remove or correct that sample."),
        ({"x": pa.array([], pa.list_(pa.float32()))}, {}, "ROOT holds no rows. Give at least one row."),
        ({"x": [[1.0, 2.0]]}, {"split": "test"}, "ROOT has no splits. Give the split's own files."),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, columns: Any, options: Any, expected: str) -> None:
    assert message(write(tmp_path / "d.parquet", columns), [spec(shape=("N", 2))], **options) == expected


def test_image_that_does_not_decode_names_the_row(tmp_path: Path) -> None:
    path = write(tmp_path / "d.parquet", {"image": [encoded(1), b"junk"]})
    with pytest.raises(DataError, match=r"row 1 does not decode as an image"):
        list(open_data(path, [spec()]).batches(2))
    path = write(tmp_path / "d.parquet", {"image": [None, {"bytes": encoded(1), "path": None}]})
    with pytest.raises(DataError, match=r"row 0 holds no image\. Store the images' bytes in the column"):
        list(open_data(path, [spec()]).batches(2))


def test_damaged_files(tmp_path: Path) -> None:
    (tmp_path / "d.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(DataError, match=r"d\.parquet cannot be read as parquet: "):
        open_data(tmp_path / "d.parquet", [spec()])
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="saved is no datasets folder: "):
        open_data(tmp_path / "saved", [spec()])


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    import tracemalloc

    path = write(tmp_path / "d.parquet", {"x": np.zeros((4000, 64), np.float32).tolist()}, row_group_size=500)
    source = open_data(path, [spec(shape=("N", 64))])
    tracemalloc.start()
    assert sum(batch.size for batch in source.batches(50)) == 4000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 600_000
