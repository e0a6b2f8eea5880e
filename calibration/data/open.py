"""Which kind of data something is: one function that returns the right source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.data.arrays import ArraySource, as_array, open_arrays
from edgeq.calibration.data.arrow import is_datasets_folder, open_datasets, open_parquet
from edgeq.calibration.data.callables import from_name, from_object
from edgeq.calibration.data.images import SUFFIXES, ImageSource, find_images
from edgeq.calibration.data.options import DataOptions
from edgeq.calibration.data.running_text import RunningTextSource
from edgeq.calibration.data.tables import SUFFIXES as TABLE_SUFFIXES
from edgeq.calibration.data.text import TextSource
from edgeq.calibration.preprocess import Preprocessing
from edgeq.calibration.types import DataSource, TensorSpec
from edgeq.errors import DataError

KINDS = (
    "Known: a folder of images, .npz, .npy, .tsv/.csv/.jsonl or .txt text, .parquet, a datasets folder, "
    "module:callable."
)


def open_data(
    spec: Any,
    inputs: Sequence[TensorSpec],
    *,
    preprocessing: Preprocessing | None = None,
    options: DataOptions | None = None,
) -> DataSource:
    """Open calibration or evaluation data for a model with these ``inputs``.

    Args:
        spec: a path, ``module:callable``, or a Python object: arrays by input name, one array, a callable
            or a re-readable iterable of dicts of arrays; a data source is returned as it is.
        inputs: what the model wants; every array is checked against it.
        preprocessing: declared preprocessing of images or arrays. Without it images get the model's size and
            layout and values of 0..1, which the source's description says.
        options: how to read the data where its form does not tell.

    Raises:
        DataError: the data is not there, is of no known kind, or does not fit the model.
        MissingExtraError: it needs an optional package.
    """
    options = options or DataOptions()
    if isinstance(spec, (str, Path)):
        return _open_path(str(spec), inputs, preprocessing, options)
    if isinstance(spec, Mapping):
        arrays = {name: as_array(value, name) for name, value in spec.items()}
        return ArraySource("arrays in memory", arrays, inputs, preprocessing, options)
    if isinstance(spec, np.ndarray):
        return ArraySource("array in memory", {"x": spec}, inputs, preprocessing, options)
    if hasattr(spec, "batches") and hasattr(spec, "describe"):
        source: DataSource = spec
        return source
    return from_object(spec, inputs, preprocessing, options)


def _open_path(
    spec: str, inputs: Sequence[TensorSpec], preprocessing: Preprocessing | None, options: DataOptions
) -> DataSource:
    path = Path(spec)
    if not path.exists():
        if _is_import_path(spec):
            return from_name(spec, inputs, preprocessing, options)
        raise DataError(f"{spec} does not exist.", fix=KINDS)
    if path.is_dir():
        return _open_folder(path, inputs, preprocessing, options)
    if path.suffix == ".parquet":
        return open_parquet(path, inputs, preprocessing, options)
    if path.suffix in (".npz", ".npy"):
        return open_arrays(path, inputs, preprocessing, options)
    if path.suffix in TABLE_SUFFIXES:
        return TextSource(path, inputs, _without_preprocessing(spec, preprocessing, options))
    if path.suffix == ".txt":
        return RunningTextSource(path, inputs, _without_preprocessing(spec, preprocessing, options))
    if path.suffix.lower() in SUFFIXES:
        raise DataError(f"{spec} is a single image.", fix="Give the folder that it is in.")
    raise DataError(f"{spec} is of no known kind.", fix=KINDS)


def _is_import_path(spec: str) -> bool:
    module, colon, name = spec.partition(":")
    return bool(colon) and name.isidentifier() and all(part.isidentifier() for part in module.split("."))


def _open_folder(
    path: Path, inputs: Sequence[TensorSpec], preprocessing: Preprocessing | None, options: DataOptions
) -> DataSource:
    if is_datasets_folder(path):
        return open_datasets(path, inputs, preprocessing, options)
    if any(path.rglob("*.parquet")):
        return open_parquet(path, inputs, preprocessing, options)
    return ImageSource(find_images(path, options), inputs, preprocessing, options)


def _without_preprocessing(
    spec: str, preprocessing: Preprocessing | None, options: DataOptions
) -> DataOptions:
    if preprocessing is None:
        return options
    raise DataError(f"{spec} is text, which takes no preprocessing.", fix="Leave the preprocessing out.")
