"""The interpreter's resizing against PyTorch's, and against values that coremltools checks on macOS."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgeq.errors import TargetError
from tests.support.coreml_kernels import grid, mil, normal

SIZES = grid(((5, 7), (4, 4), (1, 3)), ((10, 7), (3, 5), (8, 12), (1, 1)))


def close(found: np.ndarray, wanted: torch.Tensor | np.ndarray) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.asarray(wanted), rtol=1e-5, atol=1e-5)


def interpolated(x: np.ndarray, size: tuple[int, int], corners: bool) -> torch.Tensor:
    return F.interpolate(torch.from_numpy(x), size, mode="bilinear", align_corners=corners)


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_corner_and_half_pixel_sampling_are_pytorchs(before: tuple[int, int], after: tuple[int, int]) -> None:
    x = normal(2, 3, *before)
    targets = {"target_size_height": after[0], "target_size_width": after[1]}
    for mode, corners in (("STRICT_ALIGN_CORNERS", True), ("UNALIGN_CORNERS", False)):
        wanted = interpolated(x, after, corners)
        close(mil("resize_bilinear", x=x, sampling_mode=mode, **targets), wanted)
        close(mil("resize", x=x, shape=[2, *after], resized_dims=np.uint32(2), sampling_mode=mode), wanted)
    if 1 not in after:
        close(
            mil("resize_bilinear", x=x, sampling_mode="ALIGN_CORNERS", **targets),
            interpolated(x, after, True),
        )


@pytest.mark.parametrize(
    ("mode", "size", "wanted"),
    # The examples of MIL's documentation, most of them run on macOS by coremltools' tests.
    [
        ("UNALIGN_CORNERS", 5, [0.0, 0.1, 0.5, 0.9, 1.0]),
        ("STRICT_ALIGN_CORNERS", 5, [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("ALIGN_CORNERS", 5, [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("DEFAULT", 5, [0.0, 0.4, 0.8, 1.0, 1.0]),
        (None, 5, [0.0, 0.4, 0.8, 1.0, 1.0]),
        ("OFFSET_CORNERS", 5, [0.1, 0.3, 0.5, 0.7, 0.9]),
        ("DEFAULT", 6, [0.0, 1 / 3, 2 / 3, 1.0, 1.0, 1.0]),
        ("OFFSET_CORNERS", 6, [1 / 12, 3 / 12, 5 / 12, 7 / 12, 9 / 12, 11 / 12]),
        ("OFFSET_CORNERS", 2, [0.25, 0.75]),
        ("STRICT_ALIGN_CORNERS", 1, [0.0]),
        ("ALIGN_CORNERS", 1, [0.5]),
        ("DEFAULT", 1, [0.0]),
    ],
)
def test_documented_sampling(mode: str | None, size: int, wanted: list[float]) -> None:
    x = np.array([0, 1], np.float32).reshape(1, 1, 2)
    expected = np.array(wanted, np.float32).reshape(1, 1, size)
    found = mil("resize_bilinear", x=x, target_size_height=1, target_size_width=size, sampling_mode=mode)
    close(found, expected)
    close(mil("resize", x=x, shape=[1, 1, size], resized_dims=np.uint32(2), sampling_mode=mode), expected)


def test_resize_bilinear_defaults_to_size_1() -> None:
    x = normal(1, 2, 3, 3)
    np.testing.assert_array_equal(mil("resize_bilinear", x=x), x[:, :, :1, :1])


def test_resize_takes_the_last_dimensions_and_zero_keeps_a_size() -> None:
    x = normal(2, 3, 4, 5)
    found = mil(
        "resize", x=x, shape=[9, 9, 0, 10], resized_dims=np.uint32(2), sampling_mode="UNALIGN_CORNERS"
    )
    close(found, interpolated(x, (4, 10), False))


@pytest.mark.parametrize(("scale", "corners"), grid(((3, 4), (2.5, 2.0), (1.0, 2.6)), (True, False)))
def test_upsample_bilinear_recomputes_its_scale(scale: tuple[float, float], corners: bool) -> None:
    x = normal(2, 3, 4, 5)
    found = mil(
        "upsample_bilinear",
        x=x,
        scale_factor_height=scale[0],
        scale_factor_width=scale[1],
        align_corners=corners,
    )
    wanted = F.interpolate(
        torch.from_numpy(x),
        scale_factor=[float(s) for s in scale],
        mode="bilinear",
        align_corners=corners,
        recompute_scale_factor=True,
    )
    close(found, wanted)


@pytest.mark.parametrize(
    ("corners", "half", "wanted"),
    # coremltools' test of iOS16, run on macOS.
    [
        (None, None, [1.0, 1.2, 1.4, 1.6, 1.8, 2.0]),
        (True, False, [1.0, 1.2, 1.4, 1.6, 1.8, 2.0]),
        (False, None, [1.0, 1.0, 4 / 3, 5 / 3, 2.0, 2.0]),
        (False, True, [1.0, 1.0, 4 / 3, 5 / 3, 2.0, 2.0]),
        (False, False, [1.0, 4 / 3, 5 / 3, 2.0, 2.0, 2.0]),
    ],
)
def test_upsample_bilinear_flags(corners: bool | None, half: bool | None, wanted: list[float]) -> None:
    x = np.array([1, 2], np.float32).reshape(1, 1, 1, 2)
    found = mil(
        "upsample_bilinear",
        x=x,
        scale_factor_height=2,
        scale_factor_width=3,
        align_corners=corners,
        half_pixel_centers=half,
    )
    close(found, np.array(wanted * 2, np.float32).reshape(1, 1, 2, 6))


def test_upsample_bilinear_refuses_both_flags() -> None:
    with pytest.raises(TargetError, match="half_pixel_centers"):
        mil("upsample_bilinear", x=normal(1, 1, 2, 2), align_corners=True, half_pixel_centers=True)


@pytest.mark.parametrize(("before", "scale"), grid(((5, 7), (4, 4), (1, 3)), ((2, 3), (1, 4), (2.5, 1.5))))
def test_upsample_nearest_is_pytorchs(before: tuple[int, int], scale: tuple[float, float]) -> None:
    x = normal(2, 3, *before)
    found = mil("upsample_nearest_neighbor", x=x, scale_factor_height=scale[0], scale_factor_width=scale[1])
    size = [int(s * b) for s, b in zip(scale, before, strict=True)]
    np.testing.assert_array_equal(found, F.interpolate(torch.from_numpy(x), size, mode="nearest"))


def test_upsample_nearest_refuses_a_scale_that_picks_others_than_the_sizes() -> None:
    with pytest.raises(TargetError, match=r"the scale 1\.3 for 5 elements"):
        mil("upsample_nearest_neighbor", x=normal(1, 1, 5, 5), scale_factor_height=1.3)


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_nearest_default_is_half_pixel(before: tuple[int, int], after: tuple[int, int]) -> None:
    x = normal(2, 3, *before)
    wanted = F.interpolate(torch.from_numpy(x), after, mode="nearest-exact").numpy()
    targets = {"target_size_height": after[0], "target_size_width": after[1]}
    np.testing.assert_array_equal(mil("resize_nearest_neighbor", x=x, **targets), wanted)
    found = mil(
        "resize", x=x, shape=[*after], resized_dims=np.uint32(2), interpolation_mode="NEAREST_NEIGHBOR"
    )
    np.testing.assert_array_equal(found, wanted)


def test_nearest_default_has_the_value_that_coremltools_checks_on_macos() -> None:
    x = np.array([-6.174, 9.371], np.float32).reshape(1, 1, 2, 1)
    found = mil("resize", x=x, shape=[3, 2], resized_dims=np.uint32(2), interpolation_mode="NEAREST_NEIGHBOR")
    np.testing.assert_array_equal(found.reshape(-1), x.reshape(-1)[[0, 0, 1, 1, 1, 1]])


def test_nearest_of_other_modes_refuses_midpoints() -> None:
    shared = {"resized_dims": np.uint32(1), "interpolation_mode": "NEAREST_NEIGHBOR"}
    x = np.arange(4, dtype=np.float32)
    found = mil("resize", x=x, shape=[8], sampling_mode="UNALIGN_CORNERS", **shared)
    np.testing.assert_array_equal(found, [0, 0, 1, 1, 2, 2, 3, 3])
    with pytest.raises(TargetError, match="midway between two elements"):
        mil("resize", x=x, shape=[2], sampling_mode="UNALIGN_CORNERS", **shared)


def test_resize_refuses_what_is_not_defined() -> None:
    x = np.arange(4, dtype=np.int32)
    with pytest.raises(TargetError, match="linear interpolation of integers"):
        mil("resize", x=x, shape=[8], resized_dims=np.uint32(1))
    with pytest.raises(TargetError, match="sampling_mode 'CUBIC'"):
        mil("resize_bilinear", x=normal(1, 1, 2, 2), sampling_mode="CUBIC")


def test_nearest_keeps_integers() -> None:
    x = np.arange(4, dtype=np.int32)
    found = mil("resize", x=x, shape=[8], resized_dims=np.uint32(1), interpolation_mode="NEAREST_NEIGHBOR")
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, [0, 0, 1, 1, 2, 2, 3, 3])


def test_crop() -> None:
    x = normal(2, 3, 6, 7)
    np.testing.assert_array_equal(mil("crop", x=x, crop_height=[0, 2], crop_width=[3, 1]), x[:, :, :4, 3:6])
    np.testing.assert_array_equal(mil("crop", x=x, crop_height=[0, 0], crop_width=[0, 0]), x)


# --- crop_resize: the values that coremltools' tests check on macOS ----------------------------------------

IMAGE = np.arange(1, 17, dtype=np.float32).reshape(1, 1, 4, 4)
NORMALIZED = np.array([[0.1, 0.3, 1.3, 1], [0.5, 1.8, 1.0, 0.3], [0.0, 0.4, 0.6, 0.7]], np.float32)


@pytest.mark.parametrize(
    ("roi", "size", "normalized", "wanted"),
    [
        ([1, 1, 2, 2], 2, False, [6, 7, 10, 11]),
        ([1, 1, 2, 2], 1, False, [8.5]),
        ([0, 0, 0, 1 / 3, 1 / 3], 2, True, [1, 2, 5, 6]),
        ([2, 2, 1, 1], 2, False, [11, 10, 7, 6]),
    ],
)
def test_crop_resize_before_ios17(roi: list[float], size: int, normalized: bool, wanted: list[float]) -> None:
    found = mil(
        "crop_resize",
        opset=15,
        x=IMAGE,
        roi=np.array(roi, np.float32).reshape(1, 1, -1, 1, 1),
        target_height=size,
        target_width=size,
        normalized_coordinates=normalized,
        sampling_mode="ALIGN_CORNERS",
    )
    close(found, np.array(wanted, np.float32).reshape(1, 1, 1, size, size))


@pytest.mark.parametrize("pad", [0.0, 10.0])
def test_crop_resize_beyond_the_image(pad: float) -> None:
    shared = {"target_height": 2, "target_width": 2, "normalized_coordinates": True, "pad_value": pad}
    wanted = np.array([3.1, 5.2, pad, pad, pad, 7.9, pad, 13.9, 2.2, 3.1, 9.4, 10.3], np.float32)
    boxes = {"boxes": NORMALIZED, "box_indices": [0, 0, 0]}
    found = mil("crop_resize", opset=17, x=IMAGE, sampling_mode="ALIGN_CORNERS", **boxes, **shared)
    close(found, wanted.reshape(3, 1, 2, 2))
    roi = np.concatenate([np.zeros((3, 1), np.float32), NORMALIZED], axis=1).reshape(3, 1, 5, 1, 1)
    found = mil("crop_resize", opset=16, x=IMAGE, roi=roi, sampling_mode="ALIGN_CORNERS", **shared)
    close(found, wanted.reshape(3, 1, 1, 2, 2))


def test_crop_resize_of_several_images_and_widths_first() -> None:
    x = normal(2, 3, 5, 6)
    shared = {"target_height": 2, "target_width": 3, "sampling_mode": "STRICT_ALIGN_CORNERS"}
    box = np.array([[1, 0, 3, 2]], np.float32)
    wanted = x[:, :, [0, 2], 1:4]
    roi = box.reshape(1, 1, 4, 1, 1)
    mode = {"box_coordinate_mode": "CORNERS_WIDTH_FIRST"}
    close(mil("crop_resize", opset=15, x=x, roi=roi, **mode, **shared), wanted[None])
    close(mil("crop_resize", opset=17, x=x, boxes=box, box_indices=[1], **mode, **shared), wanted[1:])


def test_crop_resize_refuses_what_mil_does_not_define() -> None:
    boxes = {"x": IMAGE, "boxes": NORMALIZED, "box_indices": [0, 0, 0]}
    for modes in ({}, {"sampling_mode": "ALIGN_CORNERS", "box_coordinate_mode": "CENTER_SIZE_HEIGHT_FIRST"}):
        with pytest.raises(TargetError, match="MIL does not define crop_resize"):
            mil("crop_resize", **boxes, **modes)
