"""A folder of images: with ``labels.csv``, with class sub-folders, or without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.data.checks import Indices, conform
from edgeq.calibration.data.decode import ImageDecoder
from edgeq.calibration.data.hashing import files_sha256
from edgeq.calibration.data.labels import number_labels, read_label_file
from edgeq.calibration.data.options import DataOptions
from edgeq.calibration.data.source import IndexedSource, integer_labels
from edgeq.calibration.preprocess import Preprocessing, assumed_preprocessing
from edgeq.calibration.types import Array, Batch, TensorSpec
from edgeq.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
LABEL_FILES = ("labels.csv", "labels.tsv")


@dataclass(frozen=True)
class ImageFiles:
    """The images of a folder in reading order, their labels, and what to say about them."""

    root: Path
    files: list[Path]
    labels: Array | None
    label_file: Path | None
    classes: list[str] | None
    notes: tuple[str, ...] = ()


class ImageSource(IndexedSource):
    """Images decoded when their batch is read, so that memory does not grow with their number."""

    kind = "images"
    used = frozenset({"labels", "classes", "input"})

    def __init__(
        self,
        found: ImageFiles,
        inputs: Sequence[TensorSpec],
        preprocessing: Preprocessing | None,
        options: DataOptions,
    ) -> None:
        super().__init__(str(found.root), inputs, options)
        self._found = found
        self._spec = image_input(inputs, options)
        self.assumed = preprocessing is None
        if preprocessing is None:
            preprocessing, note = assumed_preprocessing(self._spec)
            self.notes.add(note)
        self.preprocessing = preprocessing
        self._decoder = ImageDecoder(self._spec, preprocessing)
        for note in found.notes:
            self.notes.add(note)

    @property
    def size(self) -> int:
        return len(self._found.files)

    @property
    def has_labels(self) -> bool:
        return self._found.labels is not None

    @property
    def natural_task(self) -> str:
        return "classification" if integer_labels(self._found.labels) else "unknown"

    def load(self, indices: Indices) -> Batch:
        samples = [self._sample(self._found.files[i], i) for i in indices.tolist()]
        shapes = {sample.shape for sample in samples}
        if len(shapes) > 1:
            sizes = ", ".join(str(list(shape[1:])) for shape in sorted(shapes))
            raise DataError(
                f"{self.location}: images of one batch have different sizes: {sizes}.",
                fix="Declare resize and crop in the preprocessing.",
            )
        labels = None if self._found.labels is None else self._found.labels[indices]
        return Batch({self._spec.name: np.concatenate(samples)}, labels, len(indices))

    def sha256(self) -> str:
        extra = [] if self._found.label_file is None else [self._found.label_file]
        return files_sha256(self._found.root, [*self._found.files, *extra])

    def details(self) -> dict[str, Any]:
        return {
            "preprocessing": self.preprocessing.model_dump(mode="json"),
            "assumed": self.assumed,
            "classes": self._found.classes,
        }

    def _sample(self, file: Path, index: int) -> Any:
        array = self._decoder.decode(file, str(file))
        return conform(array, self._spec, np.array([index]), self.notes)


def image_input(inputs: Sequence[TensorSpec], options: DataOptions) -> TensorSpec:
    """The input that images feed: the only one, or the one that the option ``input`` names.

    Raises:
        DataError: the model has other inputs too, which images cannot fill.
    """
    wanted = [spec for spec in inputs if options.input in (None, spec.name)]
    if len(wanted) == 1 and len(inputs) == 1:
        return wanted[0]
    names = ", ".join(spec.name for spec in inputs) or "none"
    raise DataError(
        f"A folder of images fills one input, but the model's inputs are: {names}"
        + (f" (and the option input names {options.input!r})." if options.input else "."),
        fix="Give arrays (.npz) or a module:callable that yields all inputs.",
    )


def find_images(root: Path, options: DataOptions) -> ImageFiles:
    """The images of a folder.

    Labels come from the option ``labels`` or ``labels.csv`` in the folder (files relative to the folder or to
    its ``images`` sub-folder); else two or more sub-folders with images are classes, numbered in the sorted
    order of their names (by value when all names are integers). Names starting with a dot are passed over.

    Raises:
        DataError: no image, a labelled file that is missing, an image without label, images both beside and
            inside sub-folders.
    """
    label_file = _label_file(root, options)
    files = sorted(path for path in root.rglob("*") if _is_image(path, root))
    if not files:
        raise DataError(f"{root} holds no images.", fix=f"Expected {', '.join(sorted(SUFFIXES))} files.")
    if label_file is not None:
        return _labelled(root, files, label_file, options)
    folders = sorted({path.relative_to(root).parts[0] for path in files if path.parent != root})
    beside = [path for path in files if path.parent == root]
    if len(folders) < 2:
        return ImageFiles(root, files, None, None, None)
    if beside:
        raise DataError(
            f"{root} holds images both in sub-folders and beside them, such as {beside[0].name}.",
            fix="Put every image into the folder of its class, or add labels.csv.",
        )
    return _class_folders(root, files, options)


def _is_image(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return path.suffix.lower() in SUFFIXES and not hidden and path.is_file()


def _label_file(root: Path, options: DataOptions) -> Path | None:
    if options.labels is not None:
        path = Path(options.labels)
        for candidate in (path, root / path):
            if candidate.is_file():
                return candidate
        raise DataError(f"The label file {options.labels} does not exist.", fix="Correct the path.")
    return next((root / name for name in LABEL_FILES if (root / name).is_file()), None)


def _labelled(root: Path, files: list[Path], label_file: Path, options: DataOptions) -> ImageFiles:
    written = read_label_file(label_file)
    by_path = {_resolve(root, name, label_file): label for name, label in written.items()}
    unlabelled = [path for path in files if path not in by_path]
    if unlabelled:
        raise DataError(
            f"{len(unlabelled)} of {len(files)} images have no label in {label_file}, "
            f"such as {unlabelled[0].relative_to(root)}.",
            fix="Add them to the file, or remove the images.",
        )
    if len(by_path) < len(written):
        raise DataError(f"{label_file} lists an image under two names.", fix="List every file once.")
    ordered = list(by_path)
    labels, classes = number_labels(list(by_path.values()), options.classes, str(label_file))
    return ImageFiles(root, ordered, labels, label_file, classes, _class_notes(classes, options))


def _resolve(root: Path, name: str, label_file: Path) -> Path:
    for candidate in (root / name, root / "images" / name):
        if candidate.is_file():
            return candidate
    raise DataError(f"{label_file} lists {name}, which is not in {root}.", fix="Correct the label file.")


def _class_folders(root: Path, files: list[Path], options: DataOptions) -> ImageFiles:
    written = [path.relative_to(root).parts[0] for path in files]
    labels, classes = number_labels(written, options.classes, str(root))
    return ImageFiles(root, files, labels, None, classes, _class_notes(classes, options))


def _class_notes(classes: list[str] | None, options: DataOptions) -> tuple[str, ...]:
    if classes is None or options.classes is not None:
        return ()
    shown = ", ".join(classes[:3]) + (", …" if len(classes) > 3 else "")
    return (f"Class names are numbered in sorted order: {shown}.",)
