"""The interpreter's quantization against ONNX Runtime's, its compressed weights against coremltools' own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeq.targets.coreml.toolkit import builder, coremltools
from tests.support.coreml_kernels import grid, mil, normal

TENSOR = {np.dtype(np.int8): TensorProto.INT8, np.dtype(np.uint8): TensorProto.UINT8}


def onnx_result(op: str, x: np.ndarray, scale: np.ndarray, zero: np.ndarray, axis: int | None) -> np.ndarray:
    kinds = {"QuantizeLinear": (TensorProto.FLOAT, TENSOR[zero.dtype])}
    source, target = kinds.get(op, (TENSOR[zero.dtype], TensorProto.FLOAT))
    attributes = {} if axis is None else {"axis": axis}
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "scale", "zero"], ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("x", source, x.shape)],
        [helper.make_tensor_value_info("y", target, x.shape)],
        [numpy_helper.from_array(scale, "scale"), numpy_helper.from_array(zero, "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def parameters(dtype: Any, axis: int | None, channels: int, zero: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    shape = () if axis is None else (channels,)
    scale = rng.uniform(0.003, 0.2, shape).astype(np.float32)
    bounds = np.iinfo(dtype)
    offset = rng.integers(bounds.min, bounds.max, shape) if zero else np.zeros(shape)
    return np.asarray(scale), np.asarray(offset).astype(dtype)


@pytest.mark.parametrize(
    ("dtype", "axis", "zero"), grid((np.int8, np.uint8), (None, 0, 1, -1), (False, True))
)
def test_quantize_and_dequantize_are_onnx_runtimes_bit_for_bit(
    dtype: Any, axis: int | None, zero: bool
) -> None:
    x = normal(4, 4, 500, 4) * 6
    scale, offset = parameters(dtype, axis, 4, zero)
    given = {"scale": scale, "zero_point": offset if zero else None, "axis": axis}
    found = mil("quantize", input=x, output_dtype=np.dtype(dtype).name, **given)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, onnx_result("QuantizeLinear", x, scale, offset, axis))
    back = mil("dequantize", input=found, **given)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, onnx_result("DequantizeLinear", found, scale, offset, axis))


def test_the_division_decides_ties() -> None:
    zero, differences = np.array(0, np.int8), 0
    for scale in np.random.default_rng(0).uniform(0.01, 0.1, 20).astype(np.float32):
        x = (np.arange(-127, 127) + 0.5).astype(np.float32) * scale
        found = mil("quantize", input=x, scale=np.asarray(scale), output_dtype="int8")
        np.testing.assert_array_equal(found, onnx_result("QuantizeLinear", x, np.asarray(scale), zero, None))
        differences += int((np.rint(x * (np.float32(1) / scale)) != found).sum())
    # the reciprocal gives other integers: the comparison above can tell the two apart
    assert differences > 0


def test_ties_go_to_even() -> None:
    halves, one = np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32), np.array(1, np.float32)
    np.testing.assert_array_equal(
        mil("quantize", input=halves, scale=one, output_dtype="int8"), [0, 2, 2, 0, -2]
    )


def test_quantize_saturates() -> None:
    x = np.array([-1e30, -np.inf, 1e30, np.inf], np.float32)
    for dtype, offset in (("int8", np.int8(7)), ("uint8", np.uint8(200))):
        found = mil(
            "quantize", input=x, scale=np.float32(0.1), zero_point=np.asarray(offset), output_dtype=dtype
        )
        bounds = np.iinfo(dtype)
        np.testing.assert_array_equal(found, [bounds.min, bounds.min, bounds.max, bounds.max])


# --- compressed weights --------------------------------------------------------------------------------


def same_as_coremltools(ios: int, op_type: str, **inputs: Any) -> None:
    """What coremltools decompresses equals the kernel's result on the same values."""
    ct, mb = coremltools(), builder()
    from coremltools.converters.mil.mil import Function

    with Function({}, opset_version=getattr(ct.target, f"iOS{ios}")):
        made = getattr(mb, op_type)(**inputs)
        first = made[0] if isinstance(made, (list, tuple)) else made
        wanted = first.op.materialized_val_inference()
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    arrays = {name: value if isinstance(value, str) else plain(value) for name, value in inputs.items()}
    found = mil(op_type, opset=ios, **arrays)
    found = found if isinstance(found, tuple) else (found,)
    assert len(found) == len(wanted)
    for mine, theirs in zip(found, wanted, strict=True):
        theirs = plain(theirs)
        assert mine.shape == theirs.shape
        np.testing.assert_array_equal(mine, theirs)


def plain(value: Any) -> np.ndarray:
    """An array without coremltools' own sub-byte dtypes; float16 as the interpreter has it."""
    array = np.asarray(value)
    if array.dtype.metadata is not None or array.dtype == np.float16:
        return array.astype(np.float32) if array.dtype.kind == "f" else array.astype(array.dtype.str)
    return array


def sub_byte(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """Cast to a MIL integer type of fewer bits."""
    coremltools()
    from coremltools.converters.mil.mil import types

    dtype = types.nptype_from_builtin(types.string_to_builtin(name))
    return lambda array: array.astype(dtype)


@pytest.mark.parametrize(("axis", "vector"), grid((0, 1, -1), (False, True)))
def test_affine_dequantize(axis: int, vector: bool) -> None:
    rng = np.random.default_rng(0)
    data = rng.integers(-128, 128, (4, 4, 4)).astype(np.int8)
    shape = (4,) if vector else ()
    scale = np.asarray(rng.uniform(0.01, 1, shape), np.float32)
    for zero in (
        np.asarray(rng.integers(-100, 100, shape), np.int8),
        np.asarray(rng.normal(size=shape), np.float32),
    ):
        inputs = {"quantized_data": data, "scale": scale[()], "zero_point": zero[()], "axis": np.int32(axis)}
        same_as_coremltools(16, "constexpr_affine_dequantize", **inputs)


@pytest.mark.parametrize(
    ("dtype", "low", "high", "blocks"),
    [
        ("int8", -128, 128, (6, 1, 1)),
        ("uint8", 0, 256, (6, 4, 2)),
        ("int4", -8, 8, (6, 2, 1)),
        ("uint4", 0, 16, (3, 4, 8)),
        ("uint4", 0, 16, (1, 1, 1)),
    ],
)
def test_blockwise_shift_scale(dtype: str, low: int, high: int, blocks: tuple[int, ...]) -> None:
    rng, cast = np.random.default_rng(1), sub_byte(dtype)
    data = cast(rng.integers(low, high, (6, 4, 8)))
    scale = rng.uniform(0.01, 1, blocks).astype(np.float32)
    same_as_coremltools(18, "constexpr_blockwise_shift_scale", data=data, scale=scale)
    offset = cast(rng.integers(low, high, blocks))
    same_as_coremltools(18, "constexpr_blockwise_shift_scale", data=data, scale=scale, offset=offset)


@pytest.mark.parametrize(("entries", "shape"), grid((2, 4, 16, 64, 256), ((5,), (3, 7, 2))))
def test_lut_to_dense_of_packed_indices(entries: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(entries)
    bits, count = int(np.log2(entries)), int(np.prod(shape))
    indices = rng.integers(0, entries, count)
    stream = ((indices[:, None] >> np.arange(bits)) & 1).astype(np.uint8).reshape(-1)
    packed = np.packbits(stream, bitorder="little")
    lut = rng.normal(size=entries).astype(np.float32)
    sizes = np.array(shape, np.uint32)
    same_as_coremltools(16, "constexpr_lut_to_dense", indices=packed, lut=lut, shape=sizes)


@pytest.mark.parametrize(
    ("bits", "groups", "width"), grid((1, 2, 3, 4, 6, 8), ((1, 1), (2, 1), (3, 4)), (1, 2))
)
def test_lut_to_dense_of_index_tensors(bits: int, groups: tuple[int, int], width: int) -> None:
    rng = np.random.default_rng(bits)
    indices = sub_byte(f"uint{bits}")(rng.integers(0, 2**bits, (6, 4)))
    lut = rng.normal(size=(*groups, 2**bits, width)).astype(np.float32)
    if width == 1:
        same_as_coremltools(18, "constexpr_lut_to_dense", indices=indices, lut=lut)
        return
    for axis in (0, 1, -1):
        same_as_coremltools(
            18, "constexpr_lut_to_dense", indices=indices, lut=lut, vector_axis=np.int32(axis)
        )


def test_sparse_to_dense() -> None:
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 2, (5, 3, 3))
    values = rng.normal(size=int(mask.sum())).astype(np.float32)
    packed = np.packbits(mask.astype(np.uint8).reshape(-1), bitorder="little")
    sizes = np.array(mask.shape, np.uint32)
    same_as_coremltools(16, "constexpr_sparse_to_dense", nonzero_data=values, mask=packed, shape=sizes)
    cast = sub_byte("uint1")
    same_as_coremltools(18, "constexpr_sparse_to_dense", nonzero_data=values, mask=cast(mask))


@pytest.mark.parametrize("width", [1, 2])
def test_lut_to_sparse(width: int) -> None:
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 2, (4, 6))
    entries = sub_byte("uint2")(rng.integers(0, 4, int(mask.sum())))
    lut = rng.normal(size=(2, 1, 4, width)).astype(np.float32)
    axis = {} if width == 1 else {"vector_axis": np.int32(0)}
    bits = sub_byte("uint1")(mask)
    same_as_coremltools(
        18, "constexpr_lut_to_sparse", indices_mask=bits, indices_nonzero_data=entries, lut=lut, **axis
    )


def test_sparse_blockwise_shift_scale() -> None:
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 2, (4, 6))
    values = rng.integers(-128, 128, int(mask.sum())).astype(np.int8)
    scale, offset = (
        rng.uniform(0.1, 1, (4, 3)).astype(np.float32),
        rng.integers(-9, 9, (4, 3)).astype(np.int8),
    )
    inputs = {"data_mask": sub_byte("uint1")(mask), "nonzero_data": values, "scale": scale, "offset": offset}
    same_as_coremltools(18, "constexpr_sparse_blockwise_shift_scale", **inputs)


def test_constexpr_cast() -> None:
    source = normal(3, 4).astype(np.float16)
    same_as_coremltools(16, "constexpr_cast", source_val=source, output_dtype="fp32")
