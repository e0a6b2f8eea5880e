"""Gather, scatter and generated tensors as Core ML packages, against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.node import RefusedNodeError
from edgeq.targets.dimensions import Dimension
from tests.support.coreml_ops import Op, by_onnxruntime, lower_ops, model_of, refusal, run_ops
from tests.support.coreml_sizes import SizedPackage

GENERATOR = np.random.default_rng(0)


def i64(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def indices(low: int, high: int, *shape: int) -> Array:
    return GENERATOR.integers(low, high, shape).astype(np.int64)


X = np.arange(60).reshape(3, 4, 5)
DATA: dict[str, Array] = {
    "x": GENERATOR.normal(size=(3, 4, 5)).astype(np.float32),
    "i": X - 30,
    "b": X % 3 == 0,
}
# The same indices as inputs and as constants: negative ones are wrapped at run time, or when it is built.
INDICES: dict[str, Array] = {
    "vector": i64(0, -1, 2, -3),
    "matrix": indices(-3, 3, 2, 2),
    "scalar": np.array(-2, np.int64),
    "along0": indices(-3, 3, 2, 4, 5),
    "along1": indices(-4, 4, 3, 6, 5),
    "along2": indices(-5, 5, 3, 4, 2),
    "small1": indices(-4, 4, 2, 3, 4),
    "tuples1": i64(0, -1).reshape(2, 1),
    "tuples2": np.array([[0, -1], [-3, 2], [1, 1]], np.int64),
    "tuples3": np.array([[[0, -1, 4], [2, 3, -5]]], np.int64),
    "single": i64(-1, 2, -2),
    "tuple1": i64(-1),
    "batch1": indices(-4, 4, 3, 2, 1),
    "batch2": indices(-5, 5, 3, 4, 1),
}
GATHERS: list[tuple[str, str, dict[str, int]]] = [
    ("Gather", "vector", {}),
    ("Gather", "matrix", {"axis": 1}),
    ("Gather", "matrix", {"axis": -1}),
    ("Gather", "scalar", {"axis": 2}),
    ("GatherElements", "along0", {}),
    ("GatherElements", "along1", {"axis": 1}),
    ("GatherElements", "along2", {"axis": -1}),
    ("GatherElements", "small1", {"axis": 1}),
    ("GatherND", "tuples1", {}),
    ("GatherND", "tuples2", {}),
    ("GatherND", "tuples3", {}),
    ("GatherND", "single", {}),
    ("GatherND", "tuple1", {}),
    ("GatherND", "batch1", {"batch_dims": 1}),
    ("GatherND", "batch2", {"batch_dims": 2}),
]


@pytest.mark.parametrize("ios", [16, 17, 18])
@pytest.mark.parametrize("computed", [False, True])
def test_gathers(ios: int, computed: bool, tmp_path: Path) -> None:
    ops = [Op(op_type, [name, index], a) for name in DATA for op_type, index, a in GATHERS]
    inputs = {**DATA, **INDICES} if computed else DATA
    run_ops(ops, inputs, tmp_path, constants={} if computed else INDICES, ios=ios).check(rtol=0, atol=0)


def test_constant_tables_of_all_types(tmp_path: Path) -> None:
    ops = [Op(op_type, [name, index], a) for name in DATA for op_type, index, a in GATHERS]
    run_ops(ops, INDICES, tmp_path, constants=DATA).check(rtol=0, atol=0)


def test_a_quantized_table_stays_one(tmp_path: Path) -> None:
    constants = {
        "table": GENERATOR.integers(-128, 128, (10, 6)).astype(np.int8),
        "scale": GENERATOR.uniform(0.1, 1.0, 6).astype(np.float32),
        "zero": np.zeros(6, np.int8),
    }
    ops = [Op("DequantizeLinear", ["table", "scale", "zero"], {"axis": 1}), Op("Gather", ["y0", "ids"])]
    model = model_of(ops, {"ids": i64(1, -2, 9)}, constants)
    lowered = lower_ops(model, by_onnxruntime(model, {"ids": i64(1, -2, 9)}))
    gathered = next(op for op in lowered.program.functions["main"].operations if op.op_type == "gather")
    assert gathered.x.op.op_type.startswith("constexpr_")
    run_ops(ops, {"ids": i64(1, -2, 9)}, tmp_path, constants=constants).check()


def test_an_int8_table_is_gathered_since_ios_17(tmp_path: Path) -> None:
    constants = {
        "table": GENERATOR.integers(-128, 128, (10, 6)).astype(np.int8),
        "scale": np.array(0.5, np.float32),
        "zero": np.array(3, np.int8),
    }
    ops = [Op("Gather", ["table", "ids"]), Op("DequantizeLinear", ["y0", "scale", "zero"])]
    inputs = {"ids": i64(1, -2, 9)}
    run_ops(ops, inputs, tmp_path, constants=constants, ios=17).check()
    model = model_of(ops, inputs, constants)
    results = by_onnxruntime(model, inputs)
    with pytest.raises(RefusedNodeError, match="input 0 is int8"):
        lower_ops(model, results, ios=16)


@pytest.mark.parametrize("ios", [16, 18])
def test_gathers_of_dynamic_sizes(ios: int, tmp_path: Path) -> None:
    dimensions = {"n": Dimension(1, 9), "m": Dimension(1, 9)}
    ops = [
        Op("Gather", ["x", "vector"]),
        Op("Gather", ["x", "ids"]),
        Op("GatherElements", ["x", "along"]),
        Op("GatherElements", ["x", "along"], {"axis": 1}),
        Op("GatherND", ["x", "pairs"]),
        Op("ScatterElements", ["x", "along", "u"], {"reduction": "add"}),
        Op("ScatterND", ["x", "pairs", "u0"]),
        Op("NonZero", ["x"]),
    ]
    inputs = {
        "x": np.round(GENERATOR.normal(size=(4, 5))).astype(np.float32),
        "ids": i64(-1, 0),
        "along": indices(-4, 4, 3, 5),
        "pairs": np.array([[0, -1], [-4, 2]], np.int64),
        "u": GENERATOR.normal(size=(3, 5)).astype(np.float32),
        "u0": i64(7, 8).astype(np.float32),
    }
    axes: dict[str, list[int | str]] = {"x": ["n", 5], "along": ["m", 5], "u": ["m", 5]}
    package = SizedPackage(ops, inputs, axes, dimensions, tmp_path, {"vector": i64(-1, 1)}, ios)
    package.check(inputs)
    larger = {"x": (7, 5), "along": (2, 5), "u": (2, 5)}
    package.check({k: np.resize(v, larger.get(k, v.shape)) for k, v in inputs.items()})


# --- scatter ----------------------------------------------------------------------------------------------

# No two equal ones: without reduction ONNX leaves open which update wins.
UNIQUE: dict[str, Array] = {
    "along0": np.stack([np.full((4, 5), row) for row in (1, -1)]).astype(np.int64),
    "along2": np.broadcast_to(i64(4, -5), (3, 4, 2)).copy(),
    "small1": np.broadcast_to(i64(3, -3).reshape(2, 1), (2, 2, 4)).copy(),
    "tuples1": i64(0, -1).reshape(2, 1),
    "tuples2": np.array([[0, -1], [-3, 2], [1, 1]], np.int64),
    "tuples3": np.array([[[0, -1, 4], [2, 3, -5]]], np.int64),
    "single": i64(-1, 2, -2),
}
REPEATED: dict[str, Array] = {
    "twice0": np.stack([np.full((4, 5), row) for row in (1, -2)]).astype(np.int64),
    "twice1": indices(-4, 4, 2, 6, 4),
    "tuples_twice": np.array([[0, -1], [0, 3], [1, 1]], np.int64),
}
UPDATE_SHAPES = {
    "along0": (2, 4, 5), "along2": (3, 4, 2), "small1": (2, 2, 4), "tuples1": (2, 4, 5), "tuples2": (3, 5),
    "tuples3": (1, 2), "single": (), "twice0": (2, 4, 5), "twice1": (2, 6, 4), "tuples_twice": (3, 5),
}  # fmt: skip
AXES = {"along0": 0, "along2": -1, "small1": 1, "twice0": 0, "twice1": 1}


def scatter(data: str, index: str, reduction: str) -> Op:
    attributes: dict[str, object] = {"reduction": reduction}
    if index in AXES:
        attributes["axis"] = AXES[index]
    op_type = "ScatterElements" if index in AXES else "ScatterND"
    return Op(op_type, [data, index, f"{data}_{index}"], attributes)


def updates(name: str, index: str) -> Array:
    values = GENERATOR.integers(-4, 5, UPDATE_SHAPES[index])
    return np.asarray(values > 0 if name == "b" else values).astype(DATA[name].dtype)


@pytest.mark.parametrize("ios", [16, 18])
@pytest.mark.parametrize("computed", [False, True])
def test_scatters(ios: int, computed: bool, tmp_path: Path) -> None:
    every = {**UNIQUE, **REPEATED}
    ops = [scatter(name, index, "none") for name in DATA for index in UNIQUE]
    ops += [scatter(name, index, r) for name in "xi" for index in every for r in ("add", "mul", "min", "max")]
    given = {f"{name}_{index}": updates(name, index) for name in DATA for index in every}
    inputs = {**DATA, **{k: v for k, v in given.items() if any(k in op.inputs for op in ops)}}
    if computed:
        inputs |= every
    run_ops(ops, inputs, tmp_path, constants={} if computed else every, ios=ios).check(rtol=1e-5, atol=1e-6)


def test_models_in_float16(tmp_path: Path) -> None:
    inputs = {"x": DATA["x"].astype(np.float16), "u": updates("x", "tuples2").astype(np.float16)}
    fill = onnx.numpy_helper.from_array(np.array([0.5], np.float16))
    ops = [Op(op_type, ["x", index], a) for op_type, index, a in GATHERS]
    ops += [Op("ScatterND", ["x", "tuples2", "u"])]  # ONNX Runtime reduces float32 only
    ops += [Op("Trilu", ["x"], {"upper": u}) for u in (0, 1)]
    ops += [Op("Pad", ["x", "pads"], {"mode": mode}) for mode in ("constant", "edge", "wrap")]
    ops += [Op("Pad", ["x", "pads", "value"]), Op("ConstantOfShape", ["size"], {"value": fill})]
    inputs["size"] = i64(2, 3)
    constants = {**INDICES, "pads": i64(0, 1, 0, 2, 0, 1), "value": np.array(7.5, np.float16)}
    run_ops(ops, inputs, tmp_path, constants=constants).check(rtol=0, atol=0)


# --- generated tensors ------------------------------------------------------------------------------------


def tensor(value: object, dtype: type) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.array([value], dtype))


@pytest.mark.parametrize("ios", [16, 18])
def test_generated_tensors(ios: int, tmp_path: Path) -> None:
    square = GENERATOR.normal(size=(4, 6)).astype(np.float32)
    square[0, 3] = square[3, 0] = -np.inf
    inputs = {
        "m": square,
        "mi": np.arange(24).reshape(4, 6),
        "mb": np.ones((4, 6), bool),
        "batch": GENERATOR.normal(size=(2, 3, 3)).astype(np.float32),
        "h": indices(-6, 6, 2, 3),
        "nan": np.array([0.0, 3.0, -0.0, np.nan], np.float32),
        "start": np.array(-3, np.int64),
        "limit": np.array(7, np.int64),
        "step": np.array(3, np.int64),
        "size": i64(2, 3),
        "values": np.array([0.5, 3.0], np.float32),
        "many": np.array(5, np.int64),
        "lengths": i64(2, 4, 1),
        "s": GENERATOR.normal(size=(4, 3, 2)).astype(np.float32),
    }
    constants: dict[str, Array] = {
        "k1": np.array(1), "k2": np.array(-2), "k9": np.array(9), "km9": np.array(-9), "zero": np.array(0),
        "depth": np.array(4), "depths": i64(4), "f01": np.array([0, 1], np.float32),
        "i01": i64(0, 1), "i59": i64(5, -9),
        "f": np.array([-np.inf, 2.5], np.float32),
    }  # fmt: skip
    ops = [Op("Trilu", [x, *k], {"upper": u}) for x in ("m", "mi", "mb", "batch") for u in (0, 1)
           for k in ([], ["k1"], ["k2"], ["k9"], ["km9"])]  # fmt: skip
    ops += [Op("OneHot", ["h", "depth", v], {"axis": a}) for v in ("f01", "i01", "i59", "f")
            for a in (-1, 0, 1)]  # fmt: skip
    ops += [Op("OneHot", ["h", d, "f"]) for d in ("depths", "many")]
    ops += [Op("OneHot", ["h", "depth", "values"])]
    ops += [Op("Range", bounds) for bounds in (["start", "limit", "step"], ["zero", "limit", "k1"])]
    ops += [Op("Range", ["limit", "start", "k2"]), Op("Range", ["k1", "depth", "k1"])]
    ops += [Op("ConstantOfShape", ["size"]), Op("ConstantOfShape", ["size"], {"value": tensor(-3, np.int64)})]
    ops += [Op("ConstantOfShape", ["size"], {"value": tensor(True, np.bool_)})]
    ops += [Op("ConstantOfShape", ["size"], {"value": tensor(2.5, np.float32)})]
    ops += [Op("EyeLike", ["m"], a) for a in ({}, {"k": 2}, {"k": -1, "dtype": 7}, {"dtype": 6}, {"k": 99})]
    ops += [Op("NonZero", ["mb"]), Op("NonZero", ["mi"]), Op("NonZero", ["nan"])]
    ops.append(Op("ReverseSequence", ["s", "lengths"]))
    run_ops(
        ops,
        inputs,
        tmp_path,
        constants=constants,
        ios=ios,
    ).check(rtol=0, atol=0)


def test_ranges_of_integers_cast_to_float(tmp_path: Path) -> None:
    ops = [
        Op("Cast", ["n"], {"to": 1}),
        Op("Range", ["zero", "y0", "one"]),
        Op("Range", ["y0", "zero", "minus"]),
    ]
    constants = {
        "zero": np.array(0, np.float32),
        "one": np.array(1, np.float32),
        "minus": np.array(-2, np.float32),
    }
    run_ops(ops, {"n": np.array(7, np.int64)}, tmp_path, constants=constants).check(rtol=0, atol=0)


def test_one_hot_of_bools_and_of_float_indices(tmp_path: Path) -> None:
    ops = [Op("OneHot", [h, "depth", values]) for h in ("h", "hf") for values in ("off_on", "on_off")]
    constants = {"depth": i64(3), "off_on": np.array([False, True]), "on_off": np.array([True, False])}
    # ONNX Runtime has no such kernel
    hit = np.array([[True, False, False], [False, False, True], [False, False, False]])
    inputs = {"h": i64(0, -1, 5), "hf": np.array([0.9, -1.2, 5.0], np.float32)}
    run_ops(ops, inputs, tmp_path, constants=constants, wanted=[hit, ~hit] * 2).check()


def test_reverse_sequence_by_batch_first(tmp_path: Path) -> None:
    x = np.arange(24).reshape(2, 4, 3)
    inputs = {"x": x.astype(np.float32), "i": x, "b": x % 2 == 0, "n": i64(3, 1)}
    ops = [Op("ReverseSequence", [k, "n"], {"batch_axis": 0, "time_axis": 1}) for k in ("x", "i", "b")]
    run_ops(ops, inputs, tmp_path).check(rtol=0, atol=0)


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "inputs", "reason"),
    [
        (Op("Unique", ["x"]), {"x": np.ones(3, np.float32)}, "depends on the data"),
        (
            Op("Compress", ["x", "c"]),
            {"x": np.ones(3, np.float32), "c": np.ones(3, bool)},
            "depends on the data",
        ),
        (Op("NonZero", ["x"]), {"x": np.array(1, np.float32)}, "scalar"),
        (
            Op("Range", ["a", "b", "c"]),
            {k: np.array(v, np.float32) for k, v in (("a", 0), ("b", 1), ("c", 0.25))},
            "float bounds are computed at run time",
        ),
        (
            Op("ConstantOfShape", ["s"], {"value": tensor(2**40, np.int64)}),
            {"s": i64(2, 3)},
            "does not fit in int32",
        ),
        (Op("ConstantOfShape", ["s"], {"value": tensor(1, np.uint8)}), {"s": i64(2, 3)}, "uint8"),
        (
            Op("Gather", ["x", "j"], {"axis": 2}),
            {"x": np.ones((2, 2, 2, 2, 2), np.float32), "j": np.zeros((1, 1), np.int64)},
            "rank 6",
        ),
        (
            Op("ScatterElements", ["b", "j", "b"], {"reduction": "add"}),
            {"b": np.ones(3, bool), "j": i64(0, 1, 2)},
            "on bool",
        ),
    ],
)
def test_what_is_refused(op: Op, inputs: dict[str, Array], reason: str) -> None:
    assert reason in refusal(op, inputs)
