"""QuantizeLinear and DequantizeLinear as packages: numbers against ONNX Runtime, what the file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.node import RefusedNodeError
from edgeq.targets.coreml.verification.contents import package_contents
from tests.support.coreml_cases import interpret
from tests.support.coreml_ops import Op, by_onnxruntime, lower_ops, model_of, refusal, run_ops

EXACT = {"rtol": 0.0, "atol": 0.0}
HALF_WAY = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 300, -300, 0.4999, 12.5, 1e30, -1e30], np.float32)


def floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def integers(dtype: Any, *shape: int, seed: int = 0) -> Array:
    low, high = limits(dtype)
    return np.random.default_rng([seed, *shape]).integers(low, high + 1, shape).astype(dtype)


def limits(dtype: Any) -> tuple[int, int]:
    info = ml_dtypes.iinfo(dtype)
    return int(info.min), int(info.max)


def scales(*shape: int) -> Array:
    return np.random.default_rng(7).uniform(0.01, 0.2, shape).astype(np.float32)


@pytest.mark.parametrize("ios", [17, 18])
def test_roundings_of_activations_are_exact(tmp_path: Path, ios: int) -> None:
    constants: dict[str, Array] = {"s": np.float32(0.05), "s1": np.array([0.05], np.float32), "v": scales(3)}
    ops = []
    for dtype, name in ((np.int8, "i"), (np.uint8, "u")):
        constants[f"z{name}"] = np.array(7, dtype)
        constants[f"z1{name}"] = np.array([7], dtype)
        constants[f"v{name}"] = integers(dtype, 3)
        for x, scale, zero, attributes in (
            ("x", "s", f"z{name}", {}),
            ("x", "s1", f"z1{name}", {}),
            ("x", "v", f"v{name}", {"axis": 1}),
            ("x", "v", f"v{name}", {"axis": -2}),
            ("h", "s", f"z{name}", {"saturate": 0}),
        ):
            attributes_back = {k: v for k, v in attributes.items() if k == "axis"}
            ops.append(Op("QuantizeLinear", [x, scale, zero], attributes))
            ops.append(Op("DequantizeLinear", [f"y{len(ops) - 1}", scale, zero], attributes_back))
    inputs = {"x": 4 * floats(2, 3, 5), "h": HALF_WAY * np.float32(0.05)}
    run_ops(ops, inputs, tmp_path, constants=constants, ios=ios).check(**EXACT)


def test_zero_points_may_be_left_out(tmp_path: Path) -> None:
    ops = [
        Op("QuantizeLinear", ["x", "s"]),
        Op("DequantizeLinear", ["y0", "s"]),
        Op("QuantizeLinear", ["x", "s"], {"output_dtype": 3}),  # int8
        Op("DequantizeLinear", ["y2", "s"]),
    ]
    run_ops(ops, {"x": floats(4, 4)}, tmp_path, constants={"s": np.float32(0.02)}).check(**EXACT)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("ios", [16, 17, 18])
def test_weights_of_8_bits_stay_integers(tmp_path: Path, ios: int, dtype: Any) -> None:
    constants = {
        "w": integers(dtype, 16, 8),
        "t": np.float32(0.02),
        "z": np.array(3, dtype),
        "rows": scales(16),
        "rz": integers(dtype, 16, seed=1),
        "columns": scales(8),
        "cz": np.full(8, 128 if dtype == np.uint8 else 0, dtype),
    }
    forms = [("t", "z", {}), ("rows", "rz", {"axis": 0}), ("columns", "cz", {"axis": -1}), ("t", "", {})]
    ops = []
    for scale, zero, attributes in forms:
        ops.append(Op("DequantizeLinear", ["w", scale, *([zero] if zero else [])], attributes))
        ops.append(Op("MatMul", ["x", f"y{len(ops) - 1}"]))
    run = run_ops(ops, {"x": floats(4, 16)}, tmp_path, constants=constants, ios=ios)
    for wanted, got in list(zip(run.wanted, run.got, strict=True))[0::2]:
        np.testing.assert_array_equal(got, wanted)
    run.check(rtol=1e-5, atol=1e-5)
    contents = package_contents(tmp_path / "ops.mlpackage")
    stored = sum(item.tensors for name, item in contents.weights.items() if name in ("int8", "uint8"))
    kind = "constexpr_blockwise_shift_scale" if ios == 18 else "constexpr_affine_dequantize"
    assert stored == contents.operations[kind] == 4
    assert not {"float16", "float32"} & set(contents.weights)


BLOCKS = [  # axis, block size; 24 is cut into blocks of 8 where 16 does not divide it
    (0, 16),
    (1, 16),
    (1, 8),
    (-1, 24),
]


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("dtype", [ml_dtypes.int4, ml_dtypes.uint4, np.int8, np.uint8])
def test_weights_in_blocks_stay_integers(tmp_path: Path, dtype: Any, zero: bool) -> None:
    constants: dict[str, Array] = {"w": integers(dtype, 48, 24)}
    ops = []
    for index, (axis, block) in enumerate(BLOCKS):
        shape = [48, 24]
        shape[axis] = -(-shape[axis] // block)
        constants[f"s{index}"] = scales(*shape)
        constants[f"z{index}"] = integers(dtype, *shape, seed=1)
        inputs = ["w", f"s{index}", *([f"z{index}"] if zero else [])]
        ops.append(Op("DequantizeLinear", inputs, {"axis": axis, "block_size": block}))
        ops.append(Op("MatMul", ["x", f"y{len(ops) - 1}"]))
    if not zero:
        constants = {name: array for name, array in constants.items() if not name.startswith("z")}
    run = run_ops(ops, {"x": floats(3, 48)}, tmp_path, constants=constants)
    for wanted, got in list(zip(run.wanted, run.got, strict=True))[0::2]:
        np.testing.assert_array_equal(got, wanted)
    contents = package_contents(tmp_path / "ops.mlpackage")
    assert contents.operations["constexpr_blockwise_shift_scale"] == len(BLOCKS)
    assert set(contents.weights) - {"float32"} == {np.dtype(dtype).name}


FLIPPED = [  # dtype, shape of the scales of [32, 6], attributes, iOS
    (np.int8, (6,), {"axis": 1}, 17),
    (np.uint8, (32,), {"axis": 0}, 16),
    (np.uint8, (), {}, 17),
    (np.int8, (6,), {"axis": -1}, 18),
    (ml_dtypes.int4, (2, 6), {"axis": 0, "block_size": 16}, 18),
    (ml_dtypes.uint4, (2, 6), {"axis": 0, "block_size": 16}, 18),
]


@pytest.mark.parametrize(("dtype", "shape", "attributes", "ios"), FLIPPED)
@pytest.mark.parametrize("op_type", ["MatMul", "Gemm"])
def test_matrices_of_one_reader_are_stored_as_linear_wants_them(
    tmp_path: Path, op_type: str, dtype: Any, shape: tuple[int, ...], attributes: dict[str, int], ios: int
) -> None:
    constants = {"w": integers(dtype, 32, 6), "s": scales(*shape), "z": integers(dtype, *shape, seed=2)}
    ops = [Op("DequantizeLinear", ["w", "s", "z"], attributes), Op(op_type, ["x", "y0"])]
    model = model_of(ops, {"x": floats(4, 32)}, constants)
    del model.graph.output[0]
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y1", TensorProto.FLOAT, [4, 6]))
    wanted = by_onnxruntime(model, {"x": floats(4, 32)})[0]
    got = interpret(model, {"x": floats(4, 32)}, tmp_path, ios=ios)["y1"]
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-4)
    contents = package_contents(tmp_path / "model.mlpackage")
    assert contents.operations["linear"] == 1
    assert not {"matmul", "transpose"} & set(contents.operations)
    assert contents.weights[np.dtype(dtype).name].tensors == 1


def test_float16_package_keeps_weights_and_rounds_with_scales_that_float16_holds(tmp_path: Path) -> None:
    constants = {
        "s": np.float32(0.0625),
        "z": np.array(0, np.int8),
        "w": integers(np.int8, 16, 8),
        "ws": scales(8).astype(np.float16).astype(np.float32),
    }
    ops = [
        Op("QuantizeLinear", ["x", "s", "z"]),
        Op("DequantizeLinear", ["y0", "s", "z"]),
        Op("DequantizeLinear", ["w", "ws"], {"axis": 1}),
        Op("MatMul", ["y1", "y2"]),
    ]
    run = run_ops(ops, {"x": floats(4, 16)}, tmp_path, constants=constants, arithmetic="float16")
    np.testing.assert_allclose(run.got[3], run.wanted[3], rtol=2e-2, atol=2e-2)
    contents = package_contents(tmp_path / "ops.mlpackage")
    assert contents.weights["int8"].tensors == 1
    assert contents.operations["quantize"] == contents.operations["dequantize"] == 1
    assert contents.small_scales == ()


def test_biases_become_the_floats_they_stand_for(tmp_path: Path) -> None:
    constants = {
        "w": integers(np.int8, 4, 3, 3, 3),
        "ws": scales(4),
        "b": np.array([2**24 + 1, -(2**30), 5, 0], np.int32),
        "bs": scales(4) * np.float32(1e-6),
    }
    ops = [
        Op("DequantizeLinear", ["w", "ws"], {"axis": 0}),
        Op("DequantizeLinear", ["b", "bs"], {"axis": 0}),
        Op("Conv", ["x", "y0", "y1"]),
    ]
    run = run_ops(ops, {"x": floats(1, 3, 8, 8)}, tmp_path, constants=constants, ios=16)
    np.testing.assert_array_equal(run.got[1], run.wanted[1])
    run.check(rtol=1e-5, atol=1e-4)


def test_a_quantized_constant_is_folded(tmp_path: Path) -> None:
    constants = {"c": 30 * floats(6, 4), "s": np.float32(0.1), "z": np.array(-5, np.int8)}
    ops = [
        Op("QuantizeLinear", ["c", "s", "z"]),
        Op("DequantizeLinear", ["y0", "s", "z"]),
        Op("Add", ["x", "y1"]),
    ]
    run_ops(ops, {"x": floats(6, 4)}, tmp_path, constants=constants, ios=16).check(rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("ios", [17, 18])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_rows_that_a_gather_read_come_from_a_table_with_its_scales(
    tmp_path: Path, dtype: Any, ios: int
) -> None:
    constants = {
        "w": integers(dtype, 50, 8),
        "s": scales(8),
        "z": integers(dtype, 8, seed=3),
        "t": np.float32(0.5),
    }
    ops = [
        Op("Gather", ["w", "ids"], {"axis": 0}),
        Op("DequantizeLinear", ["y0", "s", "z"], {"axis": -1}),
        Op("DequantizeLinear", ["y0", "t"]),
    ]
    ids = {"ids": np.array([[3, 49], [0, -7]], np.int64)}
    run_ops(ops, ids, tmp_path, constants=constants, ios=ios).check(**EXACT)
    contents = package_contents(tmp_path / "ops.mlpackage")
    assert sum(count for kind, count in contents.operations.items() if kind.startswith("constexpr_")) == 2
    assert "dequantize" not in contents.operations


def test_rows_with_scales_of_another_axis_are_widened_after_they_were_read(tmp_path: Path) -> None:
    constants = {"w": integers(np.int8, 50, 8), "s": scales(3)}
    ops = [Op("Gather", ["w", "ids"]), Op("DequantizeLinear", ["y0", "s"], {"axis": 0})]
    ids = {"ids": np.array([3, 49, 0], np.int64)}
    run_ops(ops, ids, tmp_path, constants=constants).check(**EXACT)
    assert package_contents(tmp_path / "ops.mlpackage").operations["dequantize"] == 1


X = {"x": floats(2, 4)}
INT8 = {"s": np.float32(0.1), "z": np.array(0, np.int8)}
REFUSED = [
    (Op("QuantizeLinear", ["x", "s", "z"]), {"s": np.float32(0.1), "z": np.array(0, np.int16)}, "int16"),
    (Op("QuantizeLinear", ["x", "s", "z"]), {"s": np.float32(1), "z": np.zeros((), ml_dtypes.int4)}, "int4"),
    (
        Op("QuantizeLinear", ["x", "s", "z"]),
        {"s": np.float32(1), "z": np.zeros((), ml_dtypes.float8_e4m3fn)},
        "float8",
    ),
    (Op("QuantizeLinear", ["x", "s", "z"]), {**INT8, "s": np.float32(0)}, "positive"),
    (
        Op("QuantizeLinear", ["x", "s", "z"], {"block_size": 2, "axis": 1}),
        {"s": scales(2, 2), "z": np.zeros((2, 2), np.int8)},
        "blocks",
    ),
    (Op("QuantizeLinear", ["x", "s", "z"]), {**INT8, "s": np.float16(0.1)}, "different float types"),
    (Op("QuantizeLinear", ["x", "s", "z"], {"precision": 10}), INT8, "division"),
]


@pytest.mark.parametrize(("op", "constants", "reason"), REFUSED, ids=[reason for _, _, reason in REFUSED])
def test_what_is_refused(op: Op, constants: dict[str, Array], reason: str) -> None:
    assert reason in refusal(op, X, constants)


def test_ranges_found_at_run_time_are_refused() -> None:
    model = model_of([Op("DynamicQuantizeLinear", ["x"])], X, {})
    with pytest.raises(RefusedNodeError, match="constant scales only"):
        lower_ops(model, [np.zeros((2, 4), np.uint8)])


def test_scales_that_are_computed_are_refused() -> None:
    reason = refusal(Op("QuantizeLinear", ["x", "s"]), {**X, "s": np.array(0.1, np.float32)})
    assert "its scale is computed at run time" in reason


def test_integer_arithmetic_is_refused_by_name_of_the_form_that_works() -> None:
    ops = [Op("QuantizeLinear", ["x", "s", "z"]), Op("MatMulInteger", ["y0", "w"])]
    constants = {"s": np.ones((), np.float32), "z": np.zeros((), np.uint8), "w": integers(np.int8, 4, 4)}
    model = model_of(ops, {"x": floats(2, 4)}, constants)
    with pytest.raises(RefusedNodeError, match="only float arithmetic") as refused:
        lower_ops(model, [np.zeros((2, 4), np.uint8), np.zeros((2, 4), np.int32)])
    assert "QDQ form" in str(refused.value.fix)


@pytest.mark.parametrize(
    ("ios", "dtype", "block", "reason"),
    [(15, np.int8, 0, "iOS16"), (17, ml_dtypes.int4, 0, "iOS18"), (17, np.int8, 8, "iOS18")],
)
def test_deployment_targets_that_are_too_early(ios: int, dtype: Any, block: int, reason: str) -> None:
    scale = scales(2, 4) if block else scales(4)
    attributes = {"axis": 0, "block_size": block} if block else {"axis": 1}
    ops = [Op("DequantizeLinear", ["w", "s"], attributes), Op("MatMul", ["x", "y0"])]
    model = model_of(ops, {"x": floats(2, 16)}, {"w": integers(dtype, 16, 4), "s": scale})
    results = by_onnxruntime(model, {"x": floats(2, 16)})
    with pytest.raises(RefusedNodeError, match=reason):
        lower_ops(model, results, ios=ios)


def test_rounded_activations_need_ios17() -> None:
    model = model_of([Op("QuantizeLinear", ["x", "s", "z"])], X, INT8)
    with pytest.raises(RefusedNodeError, match="iOS17"):
        lower_ops(model, by_onnxruntime(model, X), ios=16)
