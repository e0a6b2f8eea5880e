from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edgeq.calibration.preprocess import (
    PRESETS,
    Preprocessing,
    apply_to_array,
    assumed_preprocessing,
    parse_preprocessing,
    preset,
)
from edgeq.errors import ConfigError, DataError
from tests.support.data_files import spec


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_survive_json(name: str) -> None:
    made = PRESETS[name]
    assert Preprocessing.model_validate_json(made.model_dump_json()) == made


@given(
    scale=st.floats(1e-3, 10),
    mean=st.floats(-10, 10),
    std=st.floats(0.1, 10),
    channels=st.sampled_from([1, 3]),
)
def test_arithmetic_is_scale_then_mean_then_std(scale: float, mean: float, std: float, channels: int) -> None:
    x = np.random.default_rng(0).integers(0, 256, (2, channels, 3, 3)).astype(np.uint8)
    made = Preprocessing(scale=scale, mean=(mean,) * channels, std=(std,) * channels, layout="nchw")
    out = apply_to_array(x, made, spec(shape=("N", channels, 3, 3)))
    f = np.float32
    np.testing.assert_array_equal(out, (x.astype(f) * f(scale) - f(mean)) / f(std))
    assert out.dtype == np.float32


def test_nhwc_arrays_become_nchw_with_the_mean_of_each_channel() -> None:
    x = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    made = Preprocessing(layout="nchw", array_layout="nhwc", channels="bgr", mean=(1, 2, 3))
    out = apply_to_array(x, made, spec(shape=("N", 3, 4, 5)))
    expected = x[..., ::-1].transpose(0, 3, 1, 2) - np.array([1, 2, 3], np.float32).reshape(1, 3, 1, 1)
    np.testing.assert_array_equal(out, expected)


def test_layout_of_the_model_is_inferred_when_only_the_arrays_is_declared() -> None:
    x = np.zeros((2, 4, 5, 3), np.float32)
    out = apply_to_array(x, Preprocessing(array_layout="nhwc"), spec(shape=("N", 3, 4, 5)))
    assert out.shape == (2, 3, 4, 5)


def test_gray_is_the_luma_of_rgb() -> None:
    x = np.zeros((1, 2, 2, 3), np.uint8)
    x[..., 1] = 100
    out = apply_to_array(x, Preprocessing(layout="nhwc", channels="gray"), spec(shape=("N", 2, 2, 1)))
    np.testing.assert_allclose(out, 58.7, rtol=1e-6)
    assert out.shape == (1, 2, 2, 1)


def test_keyword_spotting_formula() -> None:
    x = np.array([[83], [100], [-128]], np.int8)
    out = apply_to_array(x, Preprocessing(mean=(83,), std=(1 / 0.5847029,)), spec(shape=("N", 1)))
    np.testing.assert_allclose(out, (x.astype(np.float64) - 83) * 0.5847029, rtol=1e-6)


def test_integer_dtype_rounds_and_refuses_overflow() -> None:
    made = Preprocessing(scale=0.5, dtype="uint8")
    out = apply_to_array(np.array([[3, 5, 9]], np.uint8), made, spec(shape=("N", 3), dtype="u1"))
    np.testing.assert_array_equal(out, [[2, 2, 4]])
    with pytest.raises(DataError) as error:
        apply_to_array(
            np.array([[200]], np.uint8), Preprocessing(scale=2.0, dtype="uint8"), spec(shape=("N", 1))
        )
    assert str(error.value) == (
        "Preprocessing for input 'x' gives values outside uint8's range 0..255. "
        "Correct scale, mean, std or dtype."
    )


def test_resize_of_arrays_is_refused() -> None:
    with pytest.raises(DataError) as error:
        apply_to_array(np.zeros((1, 3, 9, 9), np.uint8), PRESETS["unit"], spec())
    assert str(error.value) == (
        "Preprocessing declares resize or crop, which arrays for input 'x' do not get. "
        "Store the arrays in the model's size and set resize=none crop=none."
    )


def test_wrong_number_of_means() -> None:
    with pytest.raises(DataError, match=r"2 means or stds, but input 'x' has shape \[1, 3, 8, 8\]"):
        apply_to_array(np.zeros((1, 3, 8, 8)), Preprocessing(mean=(1, 2), layout="nchw"), spec())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("imagenet", PRESETS["imagenet"]),
        ("imagenet-caffe-bgr resize=none", preset("imagenet-caffe-bgr", resize=None)),
        ("scale=1/255 mean=0.5,0.25,0.125", Preprocessing(scale=1 / 255, mean=(0.5, 0.25, 0.125))),
        ("resize=240,320 layout=nhwc crop=200", Preprocessing(resize=(240, 320), layout="nhwc", crop=200)),
        ("unit mean=0.5 std=none", preset("unit", mean=(0.5,))),
        ("", Preprocessing()),
    ],
)
def test_one_line_form(text: str, expected: Preprocessing) -> None:
    assert parse_preprocessing(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "imagnet",
            "Unknown preprocessing 'imagnet'. Known presets: imagenet, imagenet-caffe-bgr, unit, none.",
        ),
        ("none 7", "Preprocessing 'none 7': '7' is no field=value. Fields: "),
        ("none sclae=2", "Preprocessing field 'sclae': Extra inputs are not permitted. Fields: "),
        ("scale=1/0", "Preprocessing field 'scale': Input should be a valid number"),
        ("std=0", "Preprocessing field 'value': Value error, std must not be 0. Fields: "),
        ("resize=big", "Preprocessing field 'resize': "),
        ("crop=²", "Preprocessing field 'crop': "),
    ],
)
def test_one_line_form_refuses(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_preprocessing(text)
    assert str(error.value).startswith(message)


def test_frozen_and_closed() -> None:
    with pytest.raises(ValidationError):
        Preprocessing(colour="rgb")  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        PRESETS["unit"].scale = 3  # type: ignore[misc]


def test_assumption_is_said() -> None:
    made, note = assumed_preprocessing(spec(shape=("N", 227, 224, 3)))
    assert made.layout == "nhwc"
    assert made.scale == 1 / 255
    assert note == (
        "No preprocessing was declared: assumed NHWC, resized and centre-cropped to 227x224, "
        "values scaled by 1/255, no mean or std."
    )
    made, note = assumed_preprocessing(spec(shape=("N", 3, 8, 8), dtype="u1"))
    assert made.scale == 1.0
    assert "values 0..255" in note


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            ("N", 3, "H", "W"),
            "Input 'x' has shape [N, 3, H, W]: the model does not fix the image size. "
            "Declare it: preprocessing with resize=HEIGHT,WIDTH.",
        ),
        (
            ("N", "C", 8, 8),
            "Input 'x' has shape [N, C, 8, 8], which does not tell its layout. "
            "Declare it: preprocessing with layout=nchw or layout=nhwc.",
        ),
        (
            ("N", 10),
            "Input 'x' has shape [N, 10], which is no batch of images. "
            "Images need an input [N, C, H, W] or [N, H, W, C]; give arrays (.npz) for other inputs.",
        ),
    ],
)
def test_nothing_is_assumed_where_the_shape_does_not_tell(shape: tuple[int | str, ...], message: str) -> None:
    with pytest.raises(DataError) as error:
        assumed_preprocessing(spec(shape=shape))
    assert str(error.value) == message
