"""The interpreter's pooling against PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.support.coreml_kernels import grid, mil, normal

MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
SIZES = {1: (13,), 2: (13, 10), 3: (7, 9, 8)}


def close(found: np.ndarray, wanted: torch.Tensor) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-5, atol=1e-6)


# MIL has no ceil_mode for 3-D pools.
GRID = [
    case
    for case in grid((1, 2, 3), (2, 3), (1, 2, 3), (0, 1), (False, True))
    if not (case[0] == 3 and case[4])
]


@pytest.mark.parametrize(("rank", "kernel", "stride", "pad", "ceil"), GRID)
def test_pools_like_pytorch(rank: int, kernel: int, stride: int, pad: int, ceil: bool) -> None:
    x = normal(2, 3, *SIZES[rank]) - 2
    shared = {
        "x": x,
        "kernel_sizes": [kernel] * rank,
        "strides": [stride] * rank,
        "pad_type": "custom",
        "pad": [pad] * 2 * rank,
        "ceil_mode": ceil,
    }
    wanted = MAX[rank](torch.from_numpy(x), kernel, stride, pad, ceil_mode=ceil)
    close(mil("max_pool", **shared), wanted)
    for exclude in (False, True):
        average = AVERAGE[rank](torch.from_numpy(x), kernel, stride, pad, ceil, not exclude)
        close(mil("avg_pool", **shared, exclude_padding_from_average=exclude), average)


def test_defaults_are_stride_1_and_counted_padding() -> None:
    x = normal(1, 2, 6, 6)
    shared = {"x": x, "kernel_sizes": [3, 3]}
    close(mil("max_pool", **shared, pad_type="valid"), F.max_pool2d(torch.from_numpy(x), 3, 1))
    found = mil("avg_pool", **shared, pad_type="custom", pad=[1, 1, 1, 1])
    close(found, F.avg_pool2d(torch.from_numpy(x), 3, 1, 1))


@pytest.mark.parametrize(("kernel", "stride", "kind"), grid((1, 2, 3, 4), (1, 2), ("same", "same_lower")))
def test_same_padding_is_split_like_tensorflows(kernel: int, stride: int, kind: str) -> None:
    x = normal(2, 3, 9, 8) - 3
    pads = []
    for size in (8, 9):
        total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
        small = total // 2
        pads += [small, total - small] if kind == "same" else [total - small, small]
    shared = {"x": x, "kernel_sizes": [kernel, kernel], "strides": [stride, stride], "pad_type": kind}
    wanted = F.max_pool2d(F.pad(torch.from_numpy(x), pads, value=-torch.inf), kernel, stride)
    close(mil("max_pool", **shared), wanted)
    ones = F.avg_pool2d(F.pad(torch.ones(1, 1, 9, 8), pads), kernel, stride)
    average = F.avg_pool2d(F.pad(torch.from_numpy(x), pads), kernel, stride)
    close(mil("avg_pool", **shared), average)
    close(mil("avg_pool", **shared, exclude_padding_from_average=True), average / ones)


def test_pads_before_and_after_differ() -> None:
    x = normal(1, 2, 7, 7)
    shared = {"x": x, "kernel_sizes": [3, 2], "strides": [2, 1], "pad_type": "custom", "pad": [1, 2, 0, 1]}
    padded = F.pad(torch.from_numpy(x), [0, 1, 1, 2], value=-torch.inf)
    close(mil("max_pool", **shared), F.max_pool2d(padded, (3, 2), (2, 1)))
    zeros = F.pad(torch.from_numpy(x), [0, 1, 1, 2])
    close(mil("avg_pool", **shared), F.avg_pool2d(zeros, (3, 2), (2, 1)))


@pytest.mark.parametrize(("rank", "pad"), grid((1, 2), (0, 1)))
def test_l2_pool_is_the_root_of_the_sum_of_squares(rank: int, pad: int) -> None:
    x = normal(2, 3, *SIZES[rank])
    found = mil(
        "l2_pool", x=x, kernel_sizes=[3] * rank, strides=[2] * rank, pad_type="custom", pad=[pad] * 2 * rank
    )
    squares = F.pad(torch.from_numpy(x) ** 2, [pad] * 2 * rank)
    close(found, (AVERAGE[rank](squares, 3, 2) * 3**rank).sqrt())


def test_max_pool_of_a_window_of_one_is_a_copy() -> None:
    x = normal(1, 2, 3, 3)
    found = mil("max_pool", x=x, kernel_sizes=[1, 1], pad_type="valid")
    np.testing.assert_array_equal(found, x)
    assert not np.shares_memory(found, x)
