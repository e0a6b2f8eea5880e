from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeq.calibration.data import DataOptions, open_data
from edgeq.calibration.preprocess import PRESETS, Preprocessing, preset
from edgeq.errors import DataError, UsageError
from tests.support.data_files import spec, write_image

NONE = Preprocessing()


def labelled(root: Path, names: list[str], labels: list[str], header: bool = True) -> None:
    for i, name in enumerate(names):
        write_image(root / name, (i, i, i))
    rows = (["file,label"] if header else []) + [f"{n},{k}" for n, k in zip(names, labels, strict=True)]
    (root / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def refused(root: Path, message: str, options: DataOptions | None = None) -> None:
    with pytest.raises(DataError) as error:
        open_data(root, [spec()], options=options)
    assert str(error.value).replace(str(root), "ROOT") == message


@pytest.mark.parametrize("header", [True, False])
def test_labels_file(tmp_path: Path, header: bool) -> None:
    labelled(tmp_path, ["b.png", "a.png", "c.png"], ["2", "0", "7"], header)
    source = open_data(tmp_path, [spec()], preprocessing=NONE)
    batches = list(source.batches(2))
    assert [b.size for b in batches] == [2, 1]
    assert np.concatenate([b.labels for b in batches if b.labels is not None]).tolist() == [2, 0, 7]
    assert [float(b.inputs["x"][0, 0, 0, 0]) for b in batches] == [0.0, 2.0]
    assert (source.size, source.has_labels, source.task) == (3, True, "classification")


def test_images_in_a_sub_folder_beside_the_label_file(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png")
    (tmp_path / "labels.csv").write_text("a.png,3\n", encoding="utf-8")
    (batch,) = open_data(tmp_path, [spec()], preprocessing=NONE).batches(4)
    assert batch.labels is not None
    assert batch.labels.tolist() == [3]


def test_class_names_are_numbered_in_sorted_order_and_said(tmp_path: Path) -> None:
    labelled(tmp_path, ["1.png", "2.png", "3.png"], ["dog", "cat", "dog"])
    source = open_data(tmp_path, [spec()], preprocessing=NONE)
    (batch,) = source.batches(9)
    assert batch.labels is not None
    assert batch.labels.tolist() == [1, 0, 1]
    described = source.describe()
    assert described["classes"] == ["cat", "dog"]
    assert "Class names are numbered in sorted order: cat, dog." in described["notes"]


def test_declared_classes_give_the_order(tmp_path: Path) -> None:
    labelled(tmp_path, ["1.png", "2.png"], ["dog", "cat"])
    options = DataOptions(classes=("dog", "bird", "cat"))
    (batch,) = open_data(tmp_path, [spec()], preprocessing=NONE, options=options).batches(9)
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 2]
    refused(
        tmp_path,
        "ROOT/labels.csv: label 'cat' is none of the 1 declared classes. "
        "Correct the label, or add it to the option classes.",
        DataOptions(classes=("dog",)),
    )


def test_class_folders(tmp_path: Path) -> None:
    for name in ["10/a.png", "9/a.png", "9/b.png", ".cache/z.png"]:
        write_image(tmp_path / name)
    source = open_data(tmp_path, [spec()], preprocessing=NONE)
    (batch,) = source.batches(9)
    assert batch.labels is not None
    assert sorted(batch.labels.tolist()) == [9, 9, 10]
    assert source.size == 3


def test_a_limit_spreads_over_the_classes(tmp_path: Path) -> None:
    for label in "abcd":
        for i in range(5):
            write_image(tmp_path / label / f"{i}.png")
    labels = [b.labels for b in open_data(tmp_path, [spec()], preprocessing=NONE).batches(1, limit=4)]
    assert [k.tolist() for k in labels if k is not None] == [[0], [1], [2], [3]]
    first = open_data(tmp_path, [spec()], preprocessing=NONE, options=DataOptions(select="first"))
    assert [b.labels.tolist() for b in first.batches(2, limit=3) if b.labels is not None] == [[0, 0], [0]]


def test_without_labels(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "README.md").write_text("no image", encoding="utf-8")
    source = open_data(tmp_path, [spec()], preprocessing=NONE)
    assert (source.size, source.has_labels, source.task) == (1, False, "unknown")


def test_undeclared_preprocessing_is_assumed_and_said(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", (255, 0, 51), size=(16, 24))
    source = open_data(tmp_path, [spec()])
    (batch,) = source.batches(1)
    assert batch.inputs["x"].shape == (1, 3, 8, 8)
    np.testing.assert_allclose(batch.inputs["x"][0, :, 0, 0], [1.0, 0.0, 0.2], rtol=1e-6)
    described = source.describe()
    assert described["assumed"] is True
    assert described["notes"] == [
        "No preprocessing was declared: assumed NCHW, resized and centre-cropped to 8x8, "
        "values scaled by 1/255, no mean or std."
    ]
    json.dumps(described)


def test_caffe_preset_is_bgr_minus_mean(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", (200, 150, 120))
    source = open_data(tmp_path, [spec()], preprocessing=preset("imagenet-caffe-bgr", resize=None))
    (batch,) = source.batches(1)
    assert batch.inputs["x"][0, :, 3, 3].tolist() == [120 - 104, 150 - 117, 200 - 123]
    assert source.describe()["assumed"] is False


def test_imagenet_preset_is_what_torchvision_does(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (300, 401, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    source = open_data(tmp_path, [spec(shape=("N", 3, 224, 224))], preprocessing=PRESETS["imagenet"])
    (batch,) = source.batches(1)
    small = Image.fromarray(pixels).resize((int(256 * 401 / 300), 256), Image.Resampling.BILINEAR)
    left, top = round((small.width - 224) / 2), round((small.height - 224) / 2)
    cropped = np.asarray(small.crop((left, top, left + 224, top + 224)), np.float32) / 255
    expected = (cropped - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(batch.inputs["x"][0].transpose(1, 2, 0), expected, atol=1e-5)


def test_uint8_input_gets_the_pixels_themselves(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", (7, 8, 9))
    (batch,) = open_data(tmp_path, [spec(shape=("N", 8, 8, 3), dtype="u1")]).batches(1)
    assert batch.inputs["x"].dtype == np.uint8
    assert batch.inputs["x"][0, 0, 0].tolist() == [7, 8, 9]


def test_gray_model(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", (100, 100, 100))
    source = open_data(tmp_path, [spec(shape=("N", 1, 8, 8))], preprocessing=NONE)
    (batch,) = source.batches(1)
    assert batch.inputs["x"].shape == (1, 1, 8, 8)
    assert batch.inputs["x"].max() == 100


def test_palette_and_alpha_images_are_rgb(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (1, 2, 3, 128)).save(tmp_path / "a.png")
    Image.new("P", (8, 8), 0).save(tmp_path / "b.png")
    (batch,) = open_data(tmp_path, [spec()], preprocessing=NONE).batches(2)
    assert batch.inputs["x"].shape == (2, 3, 8, 8)


def test_content_decides_the_hash(tmp_path: Path) -> None:
    for name, colour in [("one", 1), ("two", 1), ("three", 2)]:
        write_image(tmp_path / name / "a.png", (colour, 0, 0))
    hashes = [
        open_data(tmp_path / n, [spec()], preprocessing=NONE).describe()["sha256"]
        for n in ("one", "two", "three")
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_empty_folder(tmp_path: Path) -> None:
    refused(
        tmp_path,
        "ROOT holds no images. Expected .bmp, .gif, .jpeg, .jpg, .pgm, .png, .ppm, .tif, .tiff, .webp files.",
    )


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n cut"])
def test_image_that_does_not_decode_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(
        DataError, match=r"bad\.png does not decode as an image: .* Remove or replace the file"
    ):
        list(open_data(tmp_path, [spec()], preprocessing=NONE).batches(1))


def test_truncated_jpeg_is_named(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
        tmp_path / "cut.jpg"
    )
    whole = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.jpg does not decode as an image"):
        list(open_data(tmp_path, [spec()]).batches(1))


def test_sixteen_bit_image(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png has more than 8 bits per channel \(mode I;16\)"):
        list(open_data(tmp_path, [spec()], preprocessing=NONE).batches(1))


def test_listed_file_that_is_missing(tmp_path: Path) -> None:
    labelled(tmp_path, ["a.png"], ["1"])
    (tmp_path / "labels.csv").write_text("a.png,1\nb.png,2\n", encoding="utf-8")
    refused(tmp_path, "ROOT/labels.csv lists b.png, which is not in ROOT. Correct the label file.")


def test_image_without_label(tmp_path: Path) -> None:
    labelled(tmp_path, ["a.png", "b.png"], ["1", "2"])
    (tmp_path / "labels.csv").write_text("a.png,1\n", encoding="utf-8")
    refused(
        tmp_path,
        "1 of 2 images have no label in ROOT/labels.csv, such as b.png. "
        "Add them to the file, or remove the images.",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.png,1\na.png,1\n", "ROOT/labels.csv, line 2: a.png is listed twice. List every file once."),
        ("file,label\na.png\n", "ROOT/labels.csv, line 2: no label. Write rows as file,label."),
        ("a.png,-1\n", "ROOT/labels.csv: label -1 is negative. Labels count from 0."),
    ],
)
def test_bad_label_file(tmp_path: Path, content: str, message: str) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text(content, encoding="utf-8")
    refused(tmp_path, message)


def test_label_file_that_is_not_there(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    refused(
        tmp_path,
        "The label file other.csv does not exist. Correct the path.",
        DataOptions(labels="other.csv"),
    )


def test_images_beside_class_folders(tmp_path: Path) -> None:
    for name in ["a/1.png", "b/1.png", "loose.png"]:
        write_image(tmp_path / name)
    refused(
        tmp_path,
        "ROOT holds images both in sub-folders and beside them, such as loose.png. "
        "Put every image into the folder of its class, or add labels.csv.",
    )


def test_image_of_another_size_than_the_model(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", size=(9, 8))
    with pytest.raises(DataError) as error:
        list(open_data(tmp_path, [spec()], preprocessing=NONE).batches(1))
    assert str(error.value) == (
        "Data for input 'x' has shape [1, 3, 9, 8], but the model wants [N, 3, 8, 8]. "
        "Give data in the model's shape, or declare preprocessing that makes it fit."
    )


def test_sizes_that_differ_within_a_batch(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", size=(9, 8))
    write_image(tmp_path / "b.png", size=(8, 8))
    dynamic = spec(shape=("N", 3, "H", "W"))
    with pytest.raises(
        DataError, match=r"images of one batch have different sizes: \[3, 8, 8\], \[3, 9, 8\]"
    ):
        list(open_data(tmp_path, [dynamic], preprocessing=NONE).batches(2))


def test_crop_larger_than_the_image(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", size=(4, 9))
    with pytest.raises(DataError, match="4x9 is too small for a crop of 8x8"):
        list(open_data(tmp_path, [spec()], preprocessing=Preprocessing(crop="model")).batches(1))


def test_channels_that_the_model_does_not_have(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    with pytest.raises(DataError, match="declares gray images, but input 'x' has 3 channels"):
        open_data(tmp_path, [spec()], preprocessing=Preprocessing(channels="gray"))


def test_images_for_a_model_of_two_inputs(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    with pytest.raises(DataError, match="fills one input, but the model's inputs are: x, y"):
        open_data(tmp_path, [spec(), spec("y")])


def test_options_without_effect_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    with pytest.raises(UsageError, match="The option window has no effect on data of kind images"):
        open_data(tmp_path, [spec()], options=DataOptions(window=8))
    open_data(tmp_path, [spec()], options=DataOptions(tokenizer=Path("comes/with/the/model")))


@pytest.mark.parametrize(("batch_size", "limit"), [(0, None), (1, 0), (-1, 5)])
def test_batch_size_and_limit_below_one(tmp_path: Path, batch_size: int, limit: int | None) -> None:
    write_image(tmp_path / "a.png")
    with pytest.raises(UsageError, match="must be 1 or more"):
        open_data(tmp_path, [spec()]).batches(batch_size, limit)


def test_unknown_kinds(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "data.xyz").write_text("", encoding="utf-8")
    for name, message in [
        ("nowhere", "does not exist."),
        ("data.xyz", "is of no known kind. Known: a folder of images, .npz,"),
        ("a.png", "is a single image. Give the folder that it is in."),
    ]:
        with pytest.raises(DataError) as error:
            open_data(tmp_path / name, [spec()])
        assert message in str(error.value)
