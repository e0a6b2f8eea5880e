"""The interpreter's convolutions against PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgeq.errors import TargetError
from tests.support.coreml_kernels import grid, mil, normal

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
SIZES = {1: (11,), 2: (11, 8), 3: (7, 6, 5)}


def close(found: np.ndarray, wanted: torch.Tensor) -> None:
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-5, atol=2e-5)


def torch_padded(x: np.ndarray, pads: list[int]) -> torch.Tensor:
    """``pads`` in MIL's order: before and after of the first spatial axis, then of the next."""
    pairs = [tuple(pads[i : i + 2]) for i in range(0, len(pads), 2)]
    return F.pad(torch.from_numpy(x), [side for pair in reversed(pairs) for side in pair])


@pytest.mark.parametrize(
    ("rank", "groups", "stride", "dilation"),
    grid((1, 2, 3), (1, 2, 4, "depthwise", "multiplied"), (1, 2, 3), (1, 2)),
)
def test_conv_custom_padding(rank: int, groups: Any, stride: int, dilation: int) -> None:
    channels = 4
    count = {"depthwise": channels, "multiplied": channels}.get(groups, groups)
    outputs = 12 if groups == "multiplied" else 4
    kernel = (3, 2, 3)[:rank]
    x, weight = normal(2, channels, *SIZES[rank]), normal(outputs, channels // count, *kernel, seed=1)
    bias = normal(outputs, seed=2)
    pads = [2, 1, 0, 3, 1, 1][: 2 * rank]
    strides, dilations = [stride, 1, 2][:rank], [1, dilation, dilation][:rank] if rank > 1 else [dilation]
    found = mil(
        "conv",
        x=x,
        weight=weight,
        bias=bias,
        pad_type="custom",
        pad=pads,
        strides=strides,
        dilations=dilations,
        groups=count,
    )
    wanted = CONV[rank](
        torch_padded(x, pads),
        torch.from_numpy(weight),
        torch.from_numpy(bias),
        stride=strides,
        dilation=dilations,
        groups=count,
    )
    close(found, wanted)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(("kernel", "size"), grid((1, 2, 3, 4, 5), (7, 8, 9)))
def test_conv_same_is_pytorchs_for_stride_1(kernel: int, size: int) -> None:
    x, weight = normal(1, 3, size, size), normal(5, 3, kernel, kernel, seed=1)
    wanted = F.conv2d(torch.from_numpy(x), torch.from_numpy(weight), padding="same")
    close(mil("conv", x=x, weight=weight, pad_type="same"), wanted)


@pytest.mark.parametrize(
    ("kernel", "stride", "size", "before", "after"),
    # TensorFlow's rule: outputs = ceil(size / stride), the odd element behind.
    [(3, 2, 8, 0, 1), (3, 2, 7, 1, 1), (2, 2, 7, 0, 1), (5, 3, 10, 2, 2), (1, 2, 8, 0, 0), (4, 1, 8, 1, 2)],
)
def test_conv_same_pads_like_tensorflow(kernel: int, stride: int, size: int, before: int, after: int) -> None:
    x, weight = normal(1, 2, size), normal(3, 2, kernel, seed=1)
    same = mil("conv", x=x, weight=weight, pad_type="same", strides=[stride])
    lower = mil("conv", x=x, weight=weight, pad_type="same_lower", strides=[stride])
    assert same.shape[2] == lower.shape[2] == -(-size // stride)
    for found, pads in ((same, [before, after]), (lower, [after, before])):
        close(found, F.conv1d(torch_padded(x, pads), torch.from_numpy(weight), stride=stride))


def test_conv_defaults_are_valid_padding_stride_1_one_group() -> None:
    x, weight = normal(2, 3, 6, 6), normal(4, 3, 3, 3, seed=1)
    close(mil("conv", x=x, weight=weight), F.conv2d(torch.from_numpy(x), torch.from_numpy(weight)))


def test_custom_pads_do_not_count_for_other_pad_types() -> None:
    x, weight = normal(2, 3, 6, 6), normal(4, 3, 3, 3, seed=1)
    found = mil("conv", x=x, weight=weight, pad_type="valid", pad=[1, 1, 1, 1])
    close(found, F.conv2d(torch.from_numpy(x), torch.from_numpy(weight)))


def test_conv_refuses_an_unknown_pad_type() -> None:
    with pytest.raises(TargetError, match="pad_type 'reflect'"):
        mil("conv", x=normal(1, 1, 4), weight=normal(1, 1, 3), pad_type="reflect")


@pytest.mark.parametrize("shape", [(1, 64, 1, 1), (7, 64, 1, 1), (5, 64, 4, 4), (5, 64, 9, 9)])
def test_pointwise_conv_of_few_and_many_places(shape: tuple[int, ...]) -> None:
    x, weight, bias = normal(*shape), normal(24, 64, 1, 1, seed=1), normal(24, seed=2)
    wanted = F.conv2d(torch.from_numpy(x), torch.from_numpy(weight), torch.from_numpy(bias))
    close(mil("conv", x=x, weight=weight, bias=bias), wanted)


def test_conv_in_several_blocks_of_images() -> None:
    x, weight = normal(9, 32, 40, 40), normal(8, 32, 3, 3, seed=1)
    wanted = F.conv2d(torch.from_numpy(x), torch.from_numpy(weight), padding=1)
    close(mil("conv", x=x, weight=weight, pad_type="custom", pad=[1, 1, 1, 1]), wanted)


@pytest.mark.parametrize("size", [61, 130])
def test_depthwise_conv_of_planes_longer_than_one_pass(size: int) -> None:
    x, weight = normal(2, 3, size, size), normal(3, 1, 5, 5, seed=1)
    wanted = F.conv2d(torch.from_numpy(x), torch.from_numpy(weight), padding=2, groups=3)
    close(mil("conv", x=x, weight=weight, pad_type="custom", pad=[2] * 4, groups=3), wanted)


def test_conv_of_views_and_without_touching_its_inputs() -> None:
    x = normal(6, 8, 4, 2).transpose(3, 2, 0, 1)
    for weight, groups in ((normal(4, 4, 3, 3, seed=1), 1), (normal(4, 1, 3, 3, seed=1), 4)):
        before = x.copy()
        wanted = F.conv2d(torch.from_numpy(before), torch.from_numpy(weight), groups=groups)
        close(mil("conv", x=x, weight=weight, groups=groups, bias=np.zeros(4, np.float32)), wanted)
        np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    ("rank", "groups", "stride", "dilation", "pad"), grid((1, 2, 3), (1, 2), (1, 2, 3), (1, 2), (0, 1))
)
def test_conv_transpose(rank: int, groups: int, stride: int, dilation: int, pad: int) -> None:
    kernel = (3, 4, 2)[:rank]
    x, weight = normal(2, 4, *SIZES[rank]), normal(4, 3, *kernel, seed=1)
    bias = normal(3 * groups, seed=2)
    strides = [stride, 2, 1][:rank]
    kind = "custom" if pad else "valid"
    found = mil(
        "conv_transpose",
        x=x,
        weight=weight,
        bias=bias,
        pad_type=kind,
        pad=[pad] * 2 * rank,
        strides=strides,
        dilations=[dilation] * rank,
        groups=groups,
    )
    wanted = TRANSPOSED[rank](
        torch.from_numpy(x),
        torch.from_numpy(weight),
        torch.from_numpy(bias),
        stride=strides,
        padding=pad,
        groups=groups,
        dilation=dilation,
    )
    close(found, wanted)


def test_conv_transpose_cuts_before_and_after_on_their_own() -> None:
    x, weight = normal(1, 2, 6, 5), normal(2, 3, 3, 3, seed=1)
    full = F.conv_transpose2d(torch.from_numpy(x), torch.from_numpy(weight), stride=2)
    found = mil("conv_transpose", x=x, weight=weight, strides=[2, 2], pad_type="custom", pad=[1, 0, 0, 2])
    close(found, full[:, :, 1:, :-2].contiguous())


@pytest.mark.parametrize(("stride", "kernel"), grid((1, 2, 3), (1, 2, 3, 4)))
def test_conv_transpose_same_is_the_gradient_of_conv_same(stride: int, kernel: int) -> None:
    x, weight = normal(1, 2, 5), normal(2, 3, kernel, seed=1)
    found = mil("conv_transpose", x=x, weight=weight, strides=[stride], pad_type="same")
    image = torch.zeros(1, 3, 5 * stride, requires_grad=True)
    total = max(0, kernel - stride)
    padded = F.pad(image, [total // 2, total - total // 2 + max(0, stride - kernel)])
    # the adjoint of conv with the same weight: [c_in, c_out, k] reads as conv's [o, i, k]
    F.conv1d(padded, torch.from_numpy(weight), stride=stride)[..., :5].backward(torch.from_numpy(x))
    assert image.grad is not None
    close(found, image.grad)


def test_conv_transpose_output_shape_adds_what_the_kernel_reaches() -> None:
    x, weight, bias = normal(2, 3, 5, 4), normal(3, 2, 3, 3, seed=1), normal(2, seed=2)
    found = mil(
        "conv_transpose",
        x=x,
        weight=weight,
        bias=bias,
        strides=[2, 2],
        pad_type="custom",
        pad=[1, 1, 1, 1],
        output_shape=[2, 2, 10, 8],
    )
    wanted = F.conv_transpose2d(
        torch.from_numpy(x),
        torch.from_numpy(weight),
        torch.from_numpy(bias),
        stride=2,
        padding=1,
        output_padding=1,
    )
    close(found, wanted)
