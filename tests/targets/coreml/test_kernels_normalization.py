"""The interpreter's norms, matrix products and attention against PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgeq.errors import TargetError
from tests.support.coreml_kernels import grid, mil, normal


def close(found: np.ndarray, wanted: torch.Tensor, atol: float = 2e-6) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-5, atol=atol)


def tensor(*arrays: np.ndarray | None) -> list[torch.Tensor | None]:
    return [None if array is None else torch.from_numpy(array) for array in arrays]


AFFINE = grid(((2, 4, 7), (2, 4, 5, 3), (1, 4, 2, 3, 4)), (False, True), (None, 1e-2))


@pytest.mark.parametrize(("shape", "affine", "epsilon"), AFFINE)
def test_batch_norm(shape: tuple[int, ...], affine: bool, epsilon: float | None) -> None:
    x, mean, variance = normal(*shape), normal(4, seed=1), normal(4, seed=2) ** 2
    gamma, beta = (normal(4, seed=3), normal(4, seed=4)) if affine else (None, None)
    found = mil("batch_norm", x=x, mean=mean, variance=variance, gamma=gamma, beta=beta, epsilon=epsilon)
    wanted = F.batch_norm(*tensor(x, mean, variance, gamma, beta), eps=epsilon or 1e-5)
    close(found, wanted, atol=1e-5)


@pytest.mark.parametrize(("shape", "affine", "epsilon"), AFFINE)
def test_instance_norm(shape: tuple[int, ...], affine: bool, epsilon: float | None) -> None:
    x = normal(*shape) * 3 + 5
    gamma, beta = (normal(4, seed=3), normal(4, seed=4)) if affine else (None, None)
    found = mil("instance_norm", x=x, gamma=gamma, beta=beta, epsilon=epsilon)
    wanted = F.instance_norm(torch.from_numpy(x), None, None, *tensor(gamma, beta), eps=epsilon or 1e-5)
    close(found, wanted, atol=1e-5)


@pytest.mark.parametrize(("last", "affine"), grid((1, 2, 4), (False, True)))
def test_layer_norm_over_the_last_axes(last: int, affine: bool) -> None:
    x = normal(2, 3, 5, 7) - 1
    shape = x.shape[4 - last :]
    gamma, beta = (normal(*shape, seed=3), normal(*shape, seed=4)) if affine else (None, None)
    axes = None if last == 4 else [-2, -1][2 - last :]
    found = mil("layer_norm", x=x, axes=axes, gamma=gamma, beta=beta)
    close(found, F.layer_norm(torch.from_numpy(x), shape, *tensor(gamma, beta)), atol=1e-5)


def test_layer_norm_over_an_inner_axis() -> None:
    x, gamma, beta = normal(2, 6, 5), normal(6, seed=1), normal(6, seed=2)
    found = mil("layer_norm", x=x, axes=[1], gamma=gamma, beta=beta, epsilon=1e-3)
    moved = torch.from_numpy(x).transpose(1, 2)
    wanted = F.layer_norm(moved, (6,), *tensor(gamma, beta), eps=1e-3).transpose(1, 2)
    close(found, wanted, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 4), (5, 2, 3, 4), (2, 3, 2, 3, 4)])
def test_l2_norm_is_over_the_last_three_axes(shape: tuple[int, ...]) -> None:
    x = normal(*shape)
    flat = torch.from_numpy(x).flatten(-3)
    wanted = (flat / (flat.square().sum(-1, keepdim=True) + 1e-6).sqrt()).reshape(shape)
    close(mil("l2_norm", x=x), wanted)
    near_zero = np.full((1, 1, 2), 1e-4, np.float32)
    assert mil("l2_norm", x=near_zero, epsilon=1.0).max() < 2e-4


@pytest.mark.parametrize(("shape", "size"), grid(((2, 7, 5), (2, 7, 4, 3)), (1, 3, 5)))
def test_local_response_norm(shape: tuple[int, ...], size: int) -> None:
    x = normal(*shape) * 4
    close(mil("local_response_norm", x=x, size=size), F.local_response_norm(torch.from_numpy(x), size))
    found = mil("local_response_norm", x=x, size=size, alpha=0.5, beta=0.3, k=2.0)
    close(found, F.local_response_norm(torch.from_numpy(x), size, 0.5, 0.3, 2.0), atol=1e-5)


def test_local_response_norm_refuses_an_even_size() -> None:
    with pytest.raises(TargetError, match="even size 4"):
        mil("local_response_norm", x=normal(1, 4, 3), size=4)


@pytest.mark.parametrize("shape", [(6,), (5, 6), (2, 3, 6), (2, 1, 3, 6)])
def test_linear(shape: tuple[int, ...]) -> None:
    x, weight, bias = normal(*shape), normal(4, 6, seed=1), normal(4, seed=2)
    close(mil("linear", x=x, weight=weight, bias=bias), F.linear(*tensor(x, weight, bias)))
    close(mil("linear", x=x, weight=weight), F.linear(*tensor(x, weight)))


@pytest.mark.parametrize(
    ("x_shape", "y_shape"),
    [
        ((4, 3), (3, 2)),
        ((10, 4, 3), (5, 10, 3, 2)),
        ((2, 3, 4, 5), (5, 6)),
        ((1, 4, 3), (6, 3, 2)),
        ((3,), (3,)),
    ],
)
def test_matmul_broadcasts(x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> None:
    x, y = normal(*x_shape), normal(*y_shape, seed=1)
    close(mil("matmul", x=x, y=y), torch.matmul(*tensor(x, y)), atol=1e-5)


@pytest.mark.parametrize(("x_flag", "y_flag"), grid((False, True), (False, True)))
def test_matmul_transposes_the_last_axes(x_flag: bool, y_flag: bool) -> None:
    for batch in ((), (2, 3)):
        x = normal(*batch, 4, 5).swapaxes(-1, -2) if x_flag else normal(*batch, 4, 5)
        y = normal(5, 6, seed=1).swapaxes(-1, -2) if y_flag else normal(5, 6, seed=1)
        found = mil("matmul", x=x, y=y, transpose_x=x_flag, transpose_y=y_flag)
        wanted = torch.matmul(*tensor(normal(*batch, 4, 5), normal(5, 6, seed=1)))
        close(found, wanted, atol=1e-5)


def test_matmul_of_integers_stays_integer() -> None:
    x = np.arange(6, dtype=np.int32).reshape(2, 3)
    found = mil("matmul", x=x, y=x, transpose_y=True)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, x @ x.T)


@pytest.mark.parametrize(
    ("x_shape", "y_shape", "equation"),
    [
        ((2, 3, 4, 5), (2, 5, 4, 6), "nchw,nwhu->nchu"),
        ((1, 3, 1, 5), (2, 5, 4, 6), "nchw,nwhu->nchu"),
        ((3, 4, 5), (5, 4, 6), "chw,whr->chr"),
    ],
)
def test_einsum(x_shape: tuple[int, ...], y_shape: tuple[int, ...], equation: str) -> None:
    x, y = normal(*x_shape), normal(*y_shape, seed=1)
    wanted = torch.einsum(equation, *tensor(x, y))
    close(mil("einsum", values=[x, y], equation=equation), wanted, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 5, 8), (2, 3, 5, 8)])
def test_attention(shape: tuple[int, ...]) -> None:
    query, key = normal(*shape), normal(*shape[:-2], 7, 8, seed=1)
    value = normal(*shape[:-2], 7, 6, seed=2)
    mask = normal(5, 7, seed=3) > -0.5
    mask[:, 0] = True
    for attn_mask in (None, normal(5, 7, seed=4), normal(*shape[:-1], 7, seed=5), mask):
        found = mil("scaled_dot_product_attention", query=query, key=key, value=value, attn_mask=attn_mask)
        wanted = F.scaled_dot_product_attention(*tensor(query, key, value, attn_mask))
        close(found, wanted, atol=1e-5)


def test_attention_leaves_its_inputs_alone() -> None:
    query, mask = normal(1, 2, 4), np.zeros((2, 2), np.float32)
    before = query.copy()
    mil("scaled_dot_product_attention", query=query, key=query, value=query, attn_mask=mask)
    np.testing.assert_array_equal(query, before)
    assert not mask.any()
