"""Kernels that coremltools does not fold: against PyTorch, ONNX Runtime and MIL's documents."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import helper

from edgeq.calibration.types import Array
from edgeq.errors import TargetError
from tests.support.mil_cases import Mil
from tests.support.mil_folded import bools, floats, ints


def kernel(op_type: str, opset: int = 18, *, like: Array | None = None, **inputs: Any) -> Array:
    """The first output; ``like`` has the declared dtype and shape when they matter."""
    return Mil(op_type, inputs, opset).by_kernel([np.zeros(1, np.float32) if like is None else like])[0]


def onnx_runs(op_type: str, *inputs: Array, **attributes: Any) -> Array:
    names = [f"x{i}" for i in range(len(inputs))]
    infos = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in zip(names, inputs, strict=True)
    ]
    node = helper.make_node(op_type, names, ["y"], **attributes)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(np.float32))
    graph = helper.make_graph([node], "g", infos, [helper.make_tensor_value_info("y", kind, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, dict(zip(names, inputs, strict=True)))[0])


def test_silu() -> None:
    x = floats(50, scale=10)
    want = torch.nn.functional.silu(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(kernel("silu", x=x), want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("b", [2, 3])
def test_depth_and_space(b: int) -> None:
    deep, wide = floats(2, 2 * b * b, 3, 4), floats(2, 3, 2 * b, 3 * b)
    dcr = onnx_runs("DepthToSpace", deep, blocksize=b, mode="DCR")
    np.testing.assert_array_equal(kernel("depth_to_space", x=deep, block_size=b), dcr)
    np.testing.assert_array_equal(
        kernel("space_to_depth", x=wide, block_size=b), onnx_runs("SpaceToDepth", wide, blocksize=b)
    )
    shuffled = torch.nn.functional.pixel_shuffle(torch.from_numpy(deep), b).numpy()
    np.testing.assert_array_equal(kernel("pixel_shuffle", x=deep, upscale_factor=b), shuffled)
    unshuffled = torch.nn.functional.pixel_unshuffle(torch.from_numpy(wide), b).numpy()
    np.testing.assert_array_equal(kernel("pixel_unshuffle", x=wide, downscale_factor=b), unshuffled)


def test_space_and_batch() -> None:
    """TensorFlow's SpaceToBatchND by its document: strided slices, one per position in the block."""
    x, (rows, columns) = floats(2, 3, 4, 5), (2, 3)
    paddings = np.array([[1, 1], [0, 1]], np.int32)
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (0, 1)])
    places = itertools.product(range(rows), range(columns))
    want = np.concatenate([padded[:, :, r::rows, c::columns] for r, c in places])
    block = np.array([rows, columns], np.int32)
    found = kernel("space_to_batch", x=x, block_shape=block, paddings=paddings)
    np.testing.assert_array_equal(found, want)
    back = kernel("batch_to_space", x=found, block_shape=block, crops=paddings)
    np.testing.assert_array_equal(back, x)


@pytest.mark.parametrize(("axis", "size", "stride"), [(1, 3, 1), (-1, 2, 2), (0, 2, 3)])
def test_sliding_windows(axis: int, size: int, stride: int) -> None:
    x = floats(5, 6, 7)
    want = torch.from_numpy(x).unfold(axis, size, stride).movedim(-1, axis % 3 + 1).numpy()
    np.testing.assert_array_equal(kernel("sliding_windows", x=x, axis=axis, size=size, stride=stride), want)


def test_reverse_sequence() -> None:
    x, lengths = floats(4, 3, 2), np.array([4, 1, 0], np.int32)
    want = onnx_runs("ReverseSequence", x, lengths.astype(np.int64), batch_axis=1, time_axis=0)
    found = kernel("reverse_sequence", x=x, lengths=lengths, seq_axis=0, batch_axis=1)
    np.testing.assert_array_equal(found, want)


def test_reshape_like_follows_the_example_of_its_document() -> None:
    references = [np.zeros((2, 3, 4), np.float32), np.zeros((1, 5, 6), np.float32)]
    shape = {"begins": [np.int32(0), np.int32(1)], "ends": [np.int32(2), np.int32(0)]}
    found = Mil(
        "reshape_like",
        {
            "x": floats(30, 6),
            "ref_tensors": references,
            **shape,
            "end_masks": [np.bool_(False), np.bool_(True)],
        },
    ).by_kernel([np.zeros(1, np.float32)])[0]
    assert found.shape == (2, 3, 5, 6)


@pytest.mark.parametrize("axis", [-1, 0, 1, 2, -2])
def test_one_hot(axis: int) -> None:
    indices = ints(2, 3, low=0, high=4)
    values = np.array([-1, 5], np.float32)
    want = onnx_runs("OneHot", indices.astype(np.int64), np.array([4], np.int64), values, axis=axis)
    found = kernel(
        "one_hot",
        indices=indices,
        one_hot_vector_size=np.int32(4),
        axis=axis,
        on_value=np.float32(5),
        off_value=np.float32(-1),
    )
    np.testing.assert_array_equal(found, want)
    assert kernel("one_hot", indices=indices, one_hot_vector_size=np.int32(4)).dtype == np.int32


@pytest.mark.parametrize(
    ("batch", "shape", "depth"), [(0, (5,), 2), (1, (2, 4), 1), (2, (2, 3, 2), 1), (1, (2,), 3)]
)
def test_gather_nd(batch: int, shape: tuple[int, ...], depth: int) -> None:
    x = floats(2, 3, 3, 4)
    indices = ints(*shape, depth, low=0, high=2)
    want = onnx_runs("GatherND", x, indices.astype(np.int64), batch_dims=batch)
    np.testing.assert_array_equal(kernel("gather_nd", x=x, indices=indices, batch_dims=batch), want)
    negative = indices - np.array(x.shape[batch : batch + depth], np.int32)
    np.testing.assert_array_equal(kernel("gather_nd", 16, x=x, indices=negative, batch_dims=batch), want)


MODES: dict[str, Callable[[Any, Any], Any]] = {
    "update": lambda old, new: new,
    "add": lambda old, new: old + new,
    "sub": lambda old, new: old - new,
    "mul": lambda old, new: old * new,
    "div": lambda old, new: old / new,
    "max": max,
    "min": min,
}


@pytest.mark.parametrize("mode", MODES)
def test_scatter_modes_by_their_formulas(mode: str) -> None:
    """One element after the other, repeated indices as well (not for update, whose order is open)."""
    data, join = floats(3, 4, 2), MODES[mode]
    pick = np.array([2, 0] if mode == "update" else [2, 0, 2], np.int32)
    updates = floats(3, len(pick), 2, seed=1)
    want = data.copy()
    for p, (i, target), q in itertools.product(range(3), enumerate(pick), range(2)):
        want[p, target, q] = join(want[p, target, q], updates[p, i, q])
    found = kernel("scatter", data=data, indices=pick, updates=updates, axis=1, mode=mode)
    np.testing.assert_allclose(found, want, rtol=1e-6)

    along = np.broadcast_to(pick[None, :, None], updates.shape).copy()
    found = kernel("scatter_along_axis", data=data, indices=along, updates=updates, axis=-2, mode=mode)
    np.testing.assert_allclose(found, want, rtol=1e-6)

    points = np.stack(np.meshgrid(np.arange(3), pick, indexing="ij"), -1).astype(np.int32)
    found = kernel("scatter_nd", data=data, indices=points, updates=updates, mode=mode)
    np.testing.assert_allclose(found, want, rtol=1e-6)


def test_scatter_adds_by_default() -> None:
    """The defaults that coremltools builds operations with; the documents say update for one of them."""
    data, one = np.ones(3, np.float32), np.ones(1, np.float32)
    pick = np.array([1], np.int32)
    assert kernel("scatter", data=data, indices=pick, updates=one).tolist() == [1, 2, 1]
    assert kernel("scatter_along_axis", data=data, indices=pick, updates=one).tolist() == [1, 2, 1]
    assert kernel("scatter_nd", data=data, indices=pick[:, None], updates=one).tolist() == [1, 2, 1]


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_cumsum(exclusive: bool, reverse: bool) -> None:
    """coremltools cannot fold exclusive sums."""
    x = floats(3, 5)
    want = onnx_runs("CumSum", x, np.array(1, np.int64), exclusive=int(exclusive), reverse=int(reverse))
    found = kernel("cumsum", x=x, axis=1, exclusive=exclusive, reverse=reverse)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sampling", ["bilinear", "nearest"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [False, True])
def test_resample(sampling: str, padding: str, align: bool) -> None:
    x, grid = floats(2, 3, 5, 6), floats(2, 4, 7, 2, seed=1, scale=1.2)
    images, places = torch.from_numpy(x), torch.from_numpy(grid)
    want = torch.nn.functional.grid_sample(images, places, sampling, padding, align).numpy()
    # without aligned corners PyTorch reflects at the pixels' edges
    reflection = "reflection" if align else "symmetric"
    settings: dict[str, Any] = {
        "sampling_mode": sampling,
        "padding_mode": {"zeros": "constant", "border": "border", "reflection": reflection}[padding],
        "padding_value": np.float32(0),
        "align_corners": np.bool_(align),
    }
    found = kernel(
        "resample", x=x, coordinates=grid, coordinates_mode="normalized_minus_one_to_one", **settings
    )
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
    positive = (grid + 1) / 2
    found = kernel(
        "resample", x=x, coordinates=positive, coordinates_mode="normalized_zero_to_one", **settings
    )
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)


def test_resample_at_whole_pixels() -> None:
    x = floats(1, 2, 3, 4)
    found = kernel(
        "resample",
        x=x,
        coordinates=np.array([[[[1, 0], [3, 2], [4, 0]]]], np.int32),
        sampling_mode="bilinear",
        padding_mode="constant",
        padding_value=np.float32(9),
        coordinates_mode="unnormalized",
        align_corners=np.bool_(False),
    )
    np.testing.assert_array_equal(found[0, :, 0], np.stack([x[0, :, 0, 1], x[0, :, 2, 3], [9, 9]], -1))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_interleaved_concat(axis: int) -> None:
    values = [floats(2, 3, seed=seed) for seed in range(3)]
    found = kernel("concat", values=values, axis=axis, interleave=True)
    for index, value in enumerate(values):
        part = [slice(None)] * 2
        part[axis] = slice(index, None, 3)
        np.testing.assert_array_equal(found[tuple(part)], value)


def test_scalars_are_concatenated_to_a_vector() -> None:
    assert kernel("concat", values=[np.array(3, np.int32), np.array(4, np.int32)], axis=0).tolist() == [3, 4]


def test_casts_saturate() -> None:
    x = np.array([-np.inf, -3e9, 3e9, np.inf, 300.0, -1.0], np.float32)
    bounds = np.iinfo(np.int32)
    low, high = bounds.min, bounds.max
    assert kernel("cast", x=x, dtype="int32").tolist() == [low, low, high, high, 300, -1]
    assert kernel("cast", x=x, dtype="uint8").tolist() == [0, 0, 255, 255, 255, 0]
    assert kernel("cast", x=np.array([-129, 128], np.int32), dtype="int8").tolist() == [-128, 127]


def test_epsilons_of_float16_operations_are_float16() -> None:
    zero = np.zeros(1, np.float32)
    assert np.isneginf(kernel("log", x=zero, like=np.zeros(1, np.float16)))
    assert np.isposinf(kernel("rsqrt", x=zero, like=np.zeros(1, np.float16)))
    assert kernel("log", x=zero, like=zero)[0] == pytest.approx(-149 * np.log(2))
    assert kernel("inverse", x=zero, like=zero)[0] == pytest.approx(1e4)


@pytest.mark.parametrize(
    "case",
    [
        Mil("real_div", {"x": ints(3), "y": ints(3)}),
        Mil("reduce_mean", {"x": ints(3)}),
        Mil("gather", {"x": floats(3), "indices": np.array([-1], np.int32)}),
        Mil("gather", {"x": floats(3), "indices": np.array([-4], np.int32)}, 15),
        Mil("gather_nd", {"x": floats(3, 2), "indices": np.array([[0, 2]], np.int32)}),
        Mil("gather_along_axis", {"x": floats(3), "indices": np.array([3], np.int32)}),
        Mil("scatter", {"data": floats(3), "indices": np.array([-1], np.int32), "updates": floats(1)}),
        Mil("one_hot", {"indices": np.array([4], np.int32), "one_hot_vector_size": np.int32(4)}),
        Mil("gelu", {"x": floats(3), "mode": "FAST"}),
        Mil("pad", {"x": floats(3), "pad": np.array([3, 0], np.int32), "mode": "reflect"}),
        Mil("pad", {"x": floats(3), "pad": np.array([0, 4], np.int32), "mode": "replicate"}),
    ],
    ids=str,
)
def test_what_mil_leaves_undefined_is_refused(case: Mil) -> None:
    with pytest.raises(TargetError, match=case.op_type):
        case.by_kernel([np.zeros(1, np.float32)])


def test_boolean_data_moves_like_numbers() -> None:
    x = bools(3, 4)
    np.testing.assert_array_equal(kernel("band_part", x=x, lower=0, upper=-1), np.triu(x))
    assert kernel("gather", x=x, indices=np.array([2], np.int32)).dtype == bool


def test_erf_is_exact_to_two_units_in_the_last_place() -> None:
    sweep = [np.linspace(-5, 5, 40001), np.geomspace(1e-38, 1e38, 2001), [0.0, -0.0, np.inf, -np.inf, np.nan]]
    x = np.concatenate(sweep).astype(np.float32)
    want = np.array([math.erf(float(value)) for value in x])
    found = kernel("erf", x=x)
    known = ~np.isnan(want)
    assert np.isnan(found[~known]).all()
    assert np.array_equal(np.signbit(found[known]), np.signbit(want[known]))
    units = np.abs(found - want)[known] / np.spacing(np.abs(want[known]).astype(np.float32))
    assert units.max() <= 2
