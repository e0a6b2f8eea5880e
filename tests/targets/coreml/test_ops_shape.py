"""Ops on shapes as Core ML packages, against ONNX Runtime: sizes that are known, and dynamic ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.node import RefusedNodeError
from edgeq.targets.coreml.interpreter.engine import Interpreter
from edgeq.targets.coreml.interpreter.program import read_package
from edgeq.targets.coreml.options import CoreMLOptions
from edgeq.targets.coreml.package.write import write_package
from edgeq.targets.coreml.ports import from_package, to_package
from edgeq.targets.dimensions import Dimension
from tests.support.coreml_ops import Op, by_onnxruntime, lower_ops, model_of, refusal, run_ops
from tests.support.coreml_sizes import SizedPackage

INT64_MAX = np.iinfo(np.int64).max


def i64(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


CONSTANTS: dict[str, Array] = {
    "one": i64(1),
    "two": i64(2),
    "zero": np.array(0, np.int64),
    "s_6_4": i64(6, 4),
    "s_0_m1": i64(0, -1),
    "s_m1": i64(-1),
    "s_0_0_2_2": i64(0, 0, 2, 2),
    "s_scalar": np.zeros(0, np.int64),
    "a_0_m1": i64(0, -1),
    "a_1_0": i64(1, 0),
    "e_213": i64(2, 1, 3),
    "e_51314": i64(5, 1, 3, 1),
    "reps": i64(2, 1, 3),
    "ones3": i64(1, 1, 1),
    "empty": np.zeros((2, 0, 4), np.float32),
    "w": floats(2, 5, 4, seed=1),
    "ratio": np.array(0.5, np.float32),
    "training": np.array(True),
    "evaluation": np.array(False),
    "no_ratio": np.array(0.0, np.float32),
}
INPUTS: dict[str, Array] = {
    "x": floats(2, 3, 4),
    "i": np.arange(24, dtype=np.int64).reshape(2, 3, 4) - 7,
    "b": np.arange(24).reshape(2, 3, 4) % 3 == 0,
    "thin": floats(1, 3, 1),
    "scalar": np.array(2.5, np.float32),
    "single": floats(1, 1),
}


def on_all_types(op_type: str, *others: str, **attributes: object) -> list[Op]:
    return [Op(op_type, [name, *others], attributes) for name in ("x", "i", "b")]


OPS = [
    Op("Shape", ["x"]),
    Op("Shape", ["x"], {"start": 1}),
    Op("Shape", ["x"], {"start": -2, "end": -1}),
    Op("Shape", ["x"], {"start": -9, "end": 9}),
    Op("Size", ["x"]),
    Op("Size", ["scalar"]),
    *on_all_types("Reshape", "s_6_4"),
    *on_all_types("Reshape", "s_0_m1"),
    *on_all_types("Reshape", "s_m1"),
    Op("Reshape", ["x", "s_0_0_2_2"]),
    Op("Reshape", ["scalar", "s_m1"]),
    Op("Reshape", ["scalar", "ones3"]),
    Op("Reshape", ["scalar", "s_scalar"]),
    Op("Reshape", ["single", "s_scalar"]),
    Op("Reshape", ["x", "s_6_4"], {"allowzero": 1}),
    *on_all_types("Flatten"),
    *[Op("Flatten", ["x"], {"axis": axis}) for axis in range(-3, 4)],
    Op("Flatten", ["scalar"], {"axis": 0}),
    *on_all_types("Transpose"),
    *on_all_types("Transpose", perm=[1, 2, 0]),
    Op("Transpose", ["x"], {"perm": [0, 1, 2]}),
    Op("Transpose", ["scalar"]),
    Op("Squeeze", ["thin"]),
    Op("Squeeze", ["thin", "a_0_m1"]),
    Op("Squeeze", ["single"]),
    Op("Squeeze", ["x"]),
    *on_all_types("Unsqueeze", "a_0_m1"),
    *on_all_types("Unsqueeze", "a_1_0"),
    Op("Unsqueeze", ["scalar", "a_0_m1"]),
    *[Op("Concat", [name, name], {"axis": axis}) for name in ("x", "i", "b") for axis in (0, 1, -1)],
    Op("Concat", ["x", "w", "x"], {"axis": 1}),
    Op("Concat", ["x", "empty"], {"axis": 1}),
    Op("Concat", ["b"], {"axis": 1}),
    *on_all_types("Expand", "e_51314"),
    Op("Expand", ["thin", "e_213"]),
    Op("Expand", ["x", "one"]),
    Op("Expand", ["scalar", "e_213"]),
    Op("Expand", ["x", "s_scalar"]),
    *on_all_types("Tile", "reps"),
    *on_all_types("Tile", "ones3"),
    *on_all_types("Identity"),
    Op("Identity", ["w"]),
    Op("Dropout", ["x"]),
    Op("Dropout", ["x", "ratio", "evaluation"], {"seed": 3}),
    Op("Dropout", ["x", "no_ratio", "training"]),
    Op("Constant", [], {"value_float": 2.5}),
    Op("Constant", [], {"value_floats": [2.5, 1.0]}),
    Op("Constant", [], {"value_int": 4}),
    Op("Constant", [], {"value_ints": [4, -1]}),
    Op("Constant", [], {"value": onnx.numpy_helper.from_array(floats(2, 2))}),
]


@pytest.mark.parametrize("ios", [16, 17, 18])
def test_every_op_equals_onnxruntime(ios: int, tmp_path: Path) -> None:
    run_ops(OPS, INPUTS, tmp_path, constants=CONSTANTS, ios=ios).check(rtol=0, atol=0)


def test_float16_packages_move_exactly_what_float16_holds(tmp_path: Path) -> None:
    inputs = {
        k: v.astype(np.float16).astype(v.dtype) if v.dtype.kind == "f" else v for k, v in INPUTS.items()
    }
    constants = {
        k: v.astype(np.float16).astype(v.dtype) if v.dtype.kind == "f" else v for k, v in CONSTANTS.items()
    }
    ops = [op for op in OPS if op.op_type != "Constant"]
    run_ops(ops, inputs, tmp_path, constants=constants, arithmetic="float16").check(rtol=0, atol=0)


def used(ops: Sequence[Op], constants: Mapping[str, Array]) -> dict[str, Array]:
    """The constants that the ops read: ONNX Runtime warns of others."""
    return {name: constants[name] for op in ops for name in op.inputs if name in constants}


def test_models_in_float16(tmp_path: Path) -> None:
    def half(array: Array) -> Array:
        return array.astype(np.float16) if array.dtype == np.float32 else array

    ops = [op for op in OPS if op.op_type not in ("Constant", "Dropout")]
    inputs = {name: half(array) for name, array in INPUTS.items()}
    constants = {name: half(array) for name, array in used(ops, CONSTANTS).items()}
    run_ops(ops, inputs, tmp_path, constants=constants).check(rtol=0, atol=0)


# --- several sizes of one package -------------------------------------------------------------------------

DYNAMIC = {"b": Dimension(1, 8), "s": Dimension(1, 64)}


def check_sizes(
    ops: Sequence[Op],
    inputs: Sequence[Mapping[str, Array]],
    axes: Mapping[str, Sequence[int | str]],
    folder: Path,
    constants: Mapping[str, Array] | None = None,
    ios: int = 18,
) -> None:
    """One package, run with each of the inputs."""
    package = SizedPackage(ops, inputs[0], axes, DYNAMIC, folder, constants, ios)
    for each in inputs:
        package.check(each)


SIZES = [(1, 5), (2, 7), (3, 1), (1, 1)]
CHAIN_CONSTANTS: dict[str, Array] = {
    **CONSTANTS,
    "i0": np.array(0, np.int64),
    "i1": np.array(1, np.int64),
    "i01": i64(0, 1),
    "ax0": i64(0),
    "heads": i64(2),
    "minus": i64(-1),
    "copy4": i64(0, 0, 2, 4),
    "merge": i64(0, -1),
    "flat8": i64(-1, 8),
    "rows": i64(0, -1, 1, 8),
    "begin": i64(0),
    "end": i64(INT64_MAX),
    "step1": np.array(1, np.int64),
    "table": floats(64, 8, seed=3),
}


@pytest.mark.parametrize("ios", [16, 18])
def test_reshapes_of_dynamic_tensors(ios: int, tmp_path: Path) -> None:
    ops = [
        Op("Shape", ["x"]),  # y0
        Op("Gather", ["y0", "i0"]),  # y1: batch, scalar
        Op("Gather", ["y0", "i1"]),
        Op("Unsqueeze", ["y1", "ax0"]),  # y3
        Op("Unsqueeze", ["y2", "ax0"]),
        Op("Concat", ["y3", "y4", "heads", "minus"], {"axis": 0}),  # y5
        Op("Reshape", ["x", "y5"]),  # split heads
        Op("Transpose", ["y6"], {"perm": [0, 2, 1, 3]}),
        Op("Transpose", ["y7"], {"perm": [0, 2, 1, 3]}),
        Op("Concat", ["y3", "y4", "minus"], {"axis": 0}),
        Op("Reshape", ["y8", "y9"]),  # merge heads
        Op("Reshape", ["x", "copy4"]),
        Op("Reshape", ["x", "merge"]),
        Op("Reshape", ["x", "flat8"]),
        Op("Reshape", ["x", "rows"]),
        Op("Shape", ["x"], {"start": 1, "end": 2}),
        Op("Size", ["x"]),
        Op("Flatten", ["x"], {"axis": 2}),
        Op("Flatten", ["x"], {"axis": 1}),
        Op("Flatten", ["y6"], {"axis": 2}),
        Op("Mul", ["y3", "y4"]),  # y20: batch · sequence
        Op("Concat", ["y20", "minus"], {"axis": 0}),
        Op("Reshape", ["x", "y21"]),
        Op("Squeeze", ["y3", "ax0"]),
        Op("Gather", ["y0", "i01"]),
        Op("Unsqueeze", ["x", "a_1_0"]),
        Op("Concat", ["x", "x"], {"axis": 1}),
        Op("Tile", ["x", "reps"]),
    ]
    inputs = [{"x": floats(b, s, 8)} for b, s in SIZES]
    check_sizes(ops, inputs, {"x": ["b", "s", 8]}, tmp_path, CHAIN_CONSTANTS, ios)


@pytest.mark.parametrize("ios", [16, 18])
def test_masks_and_positions_of_dynamic_tensors(ios: int, tmp_path: Path) -> None:
    fill = onnx.numpy_helper.from_array(np.array([-1000.0], np.float32))
    ops = [
        Op("Shape", ["ids"]),  # y0
        Op("Gather", ["y0", "i1"]),  # y1: sequence, scalar
        Op("Range", ["i0", "y1", "step1"]),  # y2: positions
        Op("Unsqueeze", ["y2", "ax0"]),
        Op("Expand", ["y3", "y0"]),  # y4: positions of every sequence
        Op("Gather", ["table", "y4"]),
        Op("Gather", ["table", "ids"]),
        Op("Unsqueeze", ["y1", "ax0"]),  # y7
        Op("Concat", ["y7", "y7"], {"axis": 0}),
        Op("ConstantOfShape", ["y8"], {"value": fill}),  # y9: [s, s]
        Op("Trilu", ["y9", "step1"], {"upper": 1}),  # y10: causal mask
        Op("Gather", ["y0", "i0"]),
        Op("Unsqueeze", ["y11", "ax0"]),  # y12: batch
        Op("Concat", ["y12", "one", "y7", "y7"], {"axis": 0}),
        Op("Expand", ["y10", "y13"]),  # y14: [b, 1, s, s]
        Op("Slice", ["table", "begin", "y7", "ax0"]),  # y15: the first s rows
        Op("Slice", ["y14", "begin", "y7", "i_m1"]),
        Op("Unsqueeze", ["ids", "two"]),
        Op("Expand", ["y17", "y18in"]),
        Op("ConstantOfShape", ["y0"], {"value": onnx.numpy_helper.from_array(np.array([True]))}),
        Op("Expand", ["y3", "one"]),
        Op("EyeLike", ["y9"], {"k": 1}),
        Op("Trilu", ["y4"], {"upper": 0}),
    ]
    constants = {**CHAIN_CONSTANTS, "i_m1": i64(-1), "y18in": i64(1, 1, 3)}
    inputs = [{"ids": np.random.default_rng(0).integers(-64, 64, (b, s)).astype(np.int64)} for b, s in SIZES]
    check_sizes(ops, inputs, {"ids": ["b", "s"]}, tmp_path, constants, ios)


def test_expand_broadcasts_with_sizes_that_may_be_one(tmp_path: Path) -> None:
    ops = [Op("Shape", ["other"]), Op("Expand", ["x", "y0"]), Op("Expand", ["x", "e"])]
    inputs = [{"x": floats(bx, 4), "other": floats(bo, 4)} for bx, bo in ((1, 4), (4, 1), (4, 4), (1, 1))]
    axes = {"x": ["b", 4], "other": ["s", 4]}
    check_sizes(ops, inputs, axes, tmp_path, {"e": i64(4, 4)})


def test_a_target_shape_from_the_data(tmp_path: Path) -> None:
    model_inputs = [
        {"x": floats(2, 3, 4), "shape": np.array(shape, np.int64)}
        for shape in ((0, 6, 2, 1), (2, 0, -1, 2), (0, 0, 0, 1), (-1, 3, 2, 2), (4, 3, 1, 2))
    ]
    check_sizes([Op("Reshape", ["x", "shape"])], model_inputs, {}, tmp_path)
    shorter = [
        {"x": floats(2, 3, 4), "shape": np.array(shape, np.int64)} for shape in ((0, 12), (-1, 3), (6, 4))
    ]
    check_sizes([Op("Reshape", ["x", "shape"])], shorter, {}, tmp_path)


def test_fixed_dimensions_fold_to_constants() -> None:
    ops = [
        Op("Shape", ["x"]),
        Op("Gather", ["y0", "i1"]),
        Op("Unsqueeze", ["y1", "ax0"]),
        Op("Concat", ["y2", "heads", "minus"], {"axis": 0}),
        Op("Reshape", ["x", "y3"]),
        Op("Range", ["i0", "y1", "step1"]),
        Op("ConstantOfShape", ["y0"]),
    ]
    inputs = {"x": floats(2, 6, 8)}
    model = model_of(ops, inputs, used(ops, CHAIN_CONSTANTS), {"x": ["b", "s", 8]})
    fixed = {"b": Dimension(2, 2), "s": Dimension(6, 6)}
    lowered = lower_ops(model, by_onnxruntime(model, inputs), dimensions=fixed)
    computed = {op.op_type for op in lowered.program.functions["main"].operations}
    # expand_dims: an output of the package cannot be a scalar
    assert computed == {"const", "identity", "reshape", "expand_dims"}


def test_a_partly_known_shape_keeps_what_is_known() -> None:
    ops = [Op("Shape", ["x"]), Op("Gather", ["y0", "i1"]), Op("Gather", ["y0", "two"])]
    inputs = {"x": floats(2, 6, 8)}
    model = model_of(ops, inputs, used(ops, CHAIN_CONSTANTS), {"x": ["b", "s", 8]})
    lowered = lower_ops(
        model,
        by_onnxruntime(model, inputs),
        dimensions={"s": Dimension(6, 6), **DYNAMIC, "b": Dimension(1, 4)},
    )
    outputs = {output.name: output for output in lowered.program.functions["main"].outputs}
    assert outputs["y2"].val.tolist() == [8]


def test_a_target_shape_is_not_taken_apart_again() -> None:
    ops = [
        Op("Shape", ["x"], {"start": 0, "end": 1}),
        Op("Shape", ["x"], {"start": 1, "end": 2}),
        Op("Concat", ["y0", "y1", "heads", "minus"], {"axis": 0}),
        Op("Reshape", ["x", "y2"]),
    ]
    inputs = {"x": floats(2, 6, 8)}
    model = model_of(ops, inputs, used(ops, CHAIN_CONSTANTS), {"x": ["b", "s", 8]})
    lowered = lower_ops(model, by_onnxruntime(model, inputs), dimensions=DYNAMIC)
    reshape = next(op for op in lowered.program["main"].operations if op.op_type == "reshape")
    sizes, numbers = reshape.shape.op.values
    assert (sizes.op.op_type, sizes.op.x.op.op_type) == ("slice_by_index", "shape")
    assert (sizes.op.begin.val.tolist(), sizes.op.end.val.tolist()) == ([0], [2])
    assert numbers.val.tolist() == [2, -1]


# --- Split has several outputs ----------------------------------------------------------------------------


def split_model(
    x: Array, attributes: Mapping[str, object], sizes: Sequence[int], count: int, axes: Sequence[int | str]
) -> onnx.ModelProto:
    names = [f"y{index}" for index in range(count)]
    node = onnx.helper.make_node("Split", ["x", "sizes"] if sizes else ["x"], names, **attributes)
    graph = onnx.helper.make_graph(
        [node],
        "split",
        [onnx.helper.make_tensor_value_info("x", onnx.helper.np_dtype_to_tensor_dtype(x.dtype), axes)],
        [onnx.ValueInfoProto(name=name) for name in names],
        [onnx.numpy_helper.from_array(i64(*sizes), "sizes")] if sizes else [],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)


def run_split(model: onnx.ModelProto, x: Array, folder: Path) -> None:
    wanted = by_onnxruntime(model, {"x": x})
    lowered = lower_ops(model, wanted, dimensions=DYNAMIC)
    options = CoreMLOptions(dimensions=DYNAMIC)
    write_package(lowered, folder / "split.mlpackage", ios=18, arithmetic="float32", options=options)
    interpreter = Interpreter(read_package(folder / "split.mlpackage"))
    got = from_package(lowered.signature, interpreter.run(to_package(lowered.signature, {"x": x})))
    for index, right in enumerate(wanted):
        np.testing.assert_array_equal(got[f"y{index}"], right)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
@pytest.mark.parametrize(
    ("attributes", "sizes", "count"),
    [
        ({"axis": 1}, [1, 2, 3], 3),
        ({"axis": -1, "num_outputs": 2}, [], 2),
        ({"axis": 0, "num_outputs": 2}, [], 2),
        ({"axis": 1, "num_outputs": 4}, [], 4),
        ({"num_outputs": 1}, [], 1),
    ],
)
def test_split(
    attributes: dict[str, object], sizes: list[int], count: int, dtype: type, tmp_path: Path
) -> None:
    x = (np.arange(84).reshape(3, 7, 4) % 5 - 2).astype(dtype)
    x = x[:, :6] if sizes else x
    run_split(split_model(x, attributes, sizes, count, x.shape), x, tmp_path)


@pytest.mark.parametrize("size", [4, 7, 8])
def test_split_of_a_dynamic_axis(size: int, tmp_path: Path) -> None:
    x = floats(size, 4)
    run_split(split_model(x, {}, [2, size - 2], 2, ["s", 4]), x, tmp_path)
    run_split(split_model(x, {"num_outputs": 2}, [], 2, ["s", 4]), x, tmp_path)
    run_split(split_model(x, {"num_outputs": 4}, [], 4, ["s", 4]), x, tmp_path)


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "constants", "reason"),
    [
        (Op("Reshape", ["x", "s"]), {"s": i64(1, 1, 2, 3, 2, 2)}, "rank 6"),
        (Op("Unsqueeze", ["x", "a"]), {"a": i64(0, 1, 2)}, "rank 6"),
        (Op("Expand", ["x", "s"]), {"s": i64(1, 1, 1, 2, 3, 4)}, "rank 6"),
        (Op("Tile", ["x", "s"]), {"s": i64(1, 0, 1)}, "empty"),
        (Op("Dropout", ["x", "ratio", "training"]), CONSTANTS, "training_mode is on"),
    ],
)
def test_what_core_ml_cannot_have_is_refused(op: Op, constants: dict[str, Array], reason: str) -> None:
    assert reason in refusal(op, {"x": INPUTS["x"]}, used([op], constants))


def test_int8_tensors_move_since_ios_17(tmp_path: Path) -> None:
    constants = {"scale": np.array(0.1, np.float32), "zero": np.array(0, np.int8), "s": i64(6, 4)}
    moved = [
        Op("Reshape", ["y0", "s"]),
        Op("Transpose", ["y0"]),
        Op("Unsqueeze", ["y0", "a"]),
        Op("Slice", ["y0", "a", "b"]),
    ]
    ops = [Op("QuantizeLinear", ["x", "scale", "zero"]), *moved]
    ops += [Op("DequantizeLinear", [f"y{index}", "scale", "zero"]) for index in range(1, 5)]
    inputs = {"x": INPUTS["x"]}
    run_ops(ops, inputs, tmp_path, constants={**constants, "a": i64(1), "b": i64(2)}, ios=17).check()


def test_squeeze_without_axes_needs_known_sizes() -> None:
    model = model_of([Op("Squeeze", ["x"])], {"x": floats(1, 3)}, {}, {"x": ["s", 3]})
    with pytest.raises(RefusedNodeError, match="a dynamic dimension may be 1"):
        lower_ops(model, [floats(3)], dimensions=DYNAMIC)
