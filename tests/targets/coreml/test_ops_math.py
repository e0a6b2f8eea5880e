"""Elementwise arithmetic as Core ML packages, against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.calibration.types import Array
from edgeq.targets.dimensions import Dimension
from tests.support.coreml_ops import Op, lower_ops, model_of, refusal, run_ops

X, XY = ["x"], ["x", "y"]


def numbers(*shape: int, seed: int = 0, scale: float = 3.0) -> Array:
    return np.asarray(np.random.default_rng(seed).normal(size=shape) * scale, np.float32)


def integers(*shape: int, seed: int = 0, dtype: Any = np.int64) -> Array:
    return np.asarray(np.random.default_rng(seed).integers(-40, 40, shape), dtype)


def nonzero(array: Array) -> Array:
    return np.where(array == 0, array.dtype.type(7), array)


SHAPES = [
    ((), ()),
    ((3,), ()),
    ((), (2, 3)),
    ((4, 1, 3), (2, 1)),
    ((2, 3, 4, 5), (4, 5)),
    ((1,), (2, 1, 2, 1, 3)),
]
BINARY = [Op(name, XY) for name in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Sum")]


@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_binary_floats_broadcast(tmp_path: Path, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    ops = [*BINARY, Op("Mean", XY), Op("Mod", XY, {"fmod": 1})]
    inputs = {"x": numbers(*left), "y": nonzero(numbers(*right, seed=1))}
    run_ops(ops, inputs, tmp_path).check()


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_integers_divide_like_c(tmp_path: Path, dtype: type) -> None:
    """All signs, exact and inexact, and both ends of int32."""
    ends = np.iinfo(np.int32)
    x = np.array([7, -7, 7, -7, 6, -6, 0, 0, ends.max, ends.min, ends.min, ends.max, -1, 1], dtype)
    y = np.array([2, 2, -2, -2, 3, 3, 5, -5, 7, 7, -7, -7, ends.max, ends.min], dtype)
    ops = [Op("Div", XY), Op("Mod", XY), Op("Mod", XY, {"fmod": 1})]
    run_ops(ops, {"x": x, "y": y}, tmp_path / "computed").check()
    positive = np.abs(y).clip(1, ends.max).astype(dtype)
    run_ops(ops, {"x": x}, tmp_path / "constant", constants={"y": y}).check()
    run_ops(ops, {"x": x}, tmp_path / "positive", constants={"y": positive}).check()


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_integers_broadcast(tmp_path: Path, dtype: type) -> None:
    ops = [*(op for op in BINARY if op.op_type != "Sum"), Op("Mod", XY), Op("Mod", XY, {"fmod": 1})]
    ops += [Op(name, X) for name in ("Neg", "Abs", "Sign")]
    inputs = {"x": integers(4, 1, 3, dtype=dtype), "y": nonzero(integers(2, 1, seed=1, dtype=dtype))}
    run_ops(ops, inputs, tmp_path).check()


def test_dynamic_dimensions(tmp_path: Path) -> None:
    axes = {"x": ["n", 1, "s"], "y": ["s"]}
    sizes = {"n": Dimension(1, 8), "s": Dimension(1, 16)}
    ops = [*BINARY, Op("Mod", XY, {"fmod": 1}), Op("Pow", ["x", "two"]), Op("Clip", ["x", "zero", "two"])]
    constants = {"two": np.float32(2), "zero": np.float32(0)}
    for n, s in ((1, 1), (3, 7)):
        inputs = {"x": numbers(n, 1, s), "y": nonzero(numbers(s, seed=1))}
        folder = tmp_path / f"{n}x{s}"
        run_ops(ops, inputs, folder, constants=constants, axes=axes, dimensions=sizes).check()


VARIADIC = ["Min", "Max", "Sum", "Mean"]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_variadic(tmp_path: Path, count: int) -> None:
    shapes = [(2, 3), (3,), (2, 1), ()][:count]
    inputs = {f"x{i}": numbers(*shape, seed=i) for i, shape in enumerate(shapes)}
    run_ops([Op(name, list(inputs)) for name in VARIADIC], inputs, tmp_path).check()


UNARY = [
    "Neg",
    "Abs",
    "Exp",
    "Floor",
    "Ceil",
    "Round",
    "Sign",
    "Sin",
    "Cos",
    "Tan",
    "Atan",
    "Sinh",
    "Cosh",
    "Asinh",
]
DOMAINS = {
    "Log": (1e-6, 50),
    "Sqrt": (0, 50),
    "Reciprocal": (0.01, 50),
    "Asin": (-1, 1),
    "Acos": (-1, 1),
    "Acosh": (1, 50),
    "Atanh": (-0.99, 0.99),
}


@pytest.mark.parametrize("ios", [16, 17])
def test_unary(tmp_path: Path, ios: int) -> None:
    inputs = {name: np.linspace(*ends, 24, dtype=np.float32) for name, ends in DOMAINS.items()}
    inputs["x"] = numbers(4, 6)
    ops = [Op(name, X) for name in (*UNARY, "Asinh")] + [Op(name, [name]) for name in DOMAINS]
    run_ops(ops, inputs, tmp_path, ios=ios).check()


def test_round_goes_to_even(tmp_path: Path) -> None:
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.49999997, 3.5, 8388609], np.float32)
    run_ops([Op("Round", X), Op("Floor", X), Op("Ceil", X), Op("Sign", X)], {"x": x}, tmp_path).check(atol=0)


def test_no_epsilon_is_added(tmp_path: Path) -> None:
    """MIL adds 1e-4 in inverse and 1e-45 in log unless it is told not to."""
    x = np.array([0, -0.0, 1e-38, 1e-5, 1e-4, -1e-4, 1], np.float32)
    ops = [Op("Reciprocal", X), Op("Log", ["size"]), Op("Pow", ["x", "minus"]), Op("Pow", ["size", "half"])]
    constants = {"minus": np.float32(-1), "half": np.float32(-0.5)}
    run_ops(ops, {"x": x, "size": np.abs(x)}, tmp_path, constants=constants).check(rtol=1e-5, atol=0)


def test_inverse_hyperbolic_functions_are_accurate_everywhere(tmp_path: Path) -> None:
    small = np.logspace(-18, 18, 200).astype(np.float32)
    inputs = {"x": np.concatenate([small, -small, [0, 1, -1]]).astype(np.float32), "y": 1 + small}
    run_ops([Op("Asinh", X), Op("Acosh", ["y"])], inputs, tmp_path).check(rtol=2e-6, atol=1e-30)


def test_not_a_number_outside_the_domain(tmp_path: Path) -> None:
    x = np.array([-3, -0.5, 0.5, 2], np.float32)
    ops = [Op(name, X) for name in ("Log", "Sqrt", "Acosh", "Asin", "Acos", "Atanh")]
    run = run_ops(ops, {"x": x}, tmp_path)
    run.check()
    assert all(np.isnan(y).any() for y in run.got)


def test_float16_does_not_overflow_inside(tmp_path: Path) -> None:
    x = np.array([-60000, -300, -1, -1e-3, 0, 1e-3, 0.5, 1, 300, 60000], np.float32)
    ops = [
        Op("Asinh", X),
        Op("Acosh", ["size"]),
        Op("Abs", X),
        Op("Reciprocal", ["size"]),
        Op("Log", ["size"]),
    ]
    inputs = {"x": x, "size": np.maximum(np.abs(x), 1)}
    run_ops(ops, inputs, tmp_path, arithmetic="float16").check(rtol=3e-3, atol=1e-3)


def test_arithmetic_in_float16(tmp_path: Path) -> None:
    inputs = {name: np.linspace(*ends, 24, dtype=np.float32) for name, ends in DOMAINS.items()}
    inputs |= {"x": numbers(4, 6), "y": nonzero(numbers(4, 6, seed=1))}
    ops = [Op(name, X) for name in (*UNARY, "Asinh")] + [Op(name, [name]) for name in DOMAINS]
    discontinuous = {"Floor", "Ceil", "Round", "Tan"}
    ops = [op for op in ops if op.op_type not in discontinuous] + [*BINARY, Op("Mean", XY)]
    run_ops(ops, inputs, tmp_path, arithmetic="float16").check(rtol=1e-2, atol=6e-3)


@pytest.mark.parametrize("ios", [16, 18])
def test_models_in_float16(tmp_path: Path, ios: int) -> None:
    """The constants that handlers make have the dtype of the model."""
    inputs = {name: np.linspace(*ends, 24).astype(np.float16) for name, ends in DOMAINS.items()}
    inputs |= {"x": numbers(4, 6).astype(np.float16), "y": numbers(4, 6, seed=1).astype(np.float16)}
    inputs["p"] = np.abs(inputs["y"]) + np.float16(0.1)
    constants = {"two": np.float16(2), "wide": np.float32(1.3), "low": np.float16(-1), "i": np.int64(3)}
    ops = [Op(name, X) for name in (*UNARY, "Asinh")] + [Op(name, [name]) for name in DOMAINS]
    ops += [*BINARY, Op("Mean", XY), Op("Mod", ["x", "p"], {"fmod": 1}), Op("Clip", ["x", "low", "two"])]
    ops += [Op("Pow", ["p", name]) for name in ("x", "two", "wide", "i")]
    run_ops(ops, inputs, tmp_path, constants=constants, ios=ios).check(rtol=6e-3, atol=5e-3)


# --- Clip ---------------------------------------------------------------------------------------------------

BOUNDS = {
    "zero": 0.0,
    "six": 6.0,
    "low": -1.25,
    "high": 2.5,
    "lowest": float(np.finfo(np.float32).min),
    "highest": float(np.finfo(np.float32).max),
}
CLIPS = [
    ["x"],
    ["x", "zero"],
    ["x", "low"],
    ["x", "", "high"],
    ["x", "zero", "six"],
    ["x", "low", "high"],
    ["x", "high", "low"],
    ["x", "high", "high"],
    ["x", "lowest", "high"],
    ["x", "zero", "highest"],
    ["x", "computed"],
    ["x", "low", "computed"],
    ["x", "computed", "high"],
]


@pytest.mark.parametrize("ios", [16, 17])
def test_clip(tmp_path: Path, ios: int) -> None:
    inputs = {"x": numbers(5, 6), "computed": np.float32(0.75)}
    constants = {name: np.float32(value) for name, value in BOUNDS.items()}
    run_ops([Op("Clip", names) for names in CLIPS], inputs, tmp_path, constants=constants, ios=ios).check(
        atol=0
    )


def test_clip_in_float16(tmp_path: Path) -> None:
    """A bound beyond float16 is no bound there."""
    constants = {name: np.float32(value) for name, value in BOUNDS.items()}
    ops = [Op("Clip", names) for names in CLIPS if "computed" not in names]
    inputs = {"x": numbers(5, 6)}
    run_ops(ops, inputs, tmp_path, constants=constants, arithmetic="float16").check(rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_clip_integers(tmp_path: Path, dtype: type) -> None:
    ends = np.iinfo(dtype)
    constants = {"low": dtype(-5), "high": dtype(9), "lowest": dtype(ends.min), "highest": dtype(ends.max)}
    names = [["x", "low", "high"], ["x", "high", "low"], ["x", "low"], ["x", "", "high"]]
    names += [["x", "lowest", "high"], ["x", "low", "highest"]]
    inputs = {"x": integers(20, dtype=dtype)}
    run_ops([Op("Clip", n) for n in names], inputs, tmp_path, constants=constants).check()


def test_relu6_is_mils_own() -> None:
    inputs = {"x": numbers(3)}
    model = model_of([Op("Clip", ["x", "a", "b"])], inputs, {"a": np.float32(0), "b": np.float32(6)})
    program = lower_ops(model, [inputs["x"]]).program
    assert "relu6" in {op.op_type for op in program["main"].operations}


# --- Pow ----------------------------------------------------------------------------------------------------

EXPONENTS = [-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 2.5, 3.0, 4.0, 5.0]


def test_powers_of_floats(tmp_path: Path) -> None:
    constants = {f"e{i}": np.float32(e) for i, e in enumerate(EXPONENTS)}
    constants |= {"axis": np.float32([[[2.0]]]), "several": np.float32([1, 2, 3]), "base": np.float32(2)}
    ops = [Op("Pow", ["x", name]) for name in constants]
    ops += [Op("Pow", ["x", "y"]), Op("Pow", ["base", "y"])]
    inputs = {"x": np.abs(numbers(4, 3)) + 0.1, "y": numbers(3, seed=2)}
    run_ops(ops, inputs, tmp_path, constants=constants).check(rtol=1e-5)


def test_powers_of_negative_floats(tmp_path: Path) -> None:
    constants = {f"e{i}": np.float32(e) for i, e in enumerate((-3, -2, -1, 0, 1, 2, 3, 4, 5))}
    inputs = {"x": -np.abs(numbers(5)) - 0.1}
    run_ops([Op("Pow", ["x", name]) for name in constants], inputs, tmp_path, constants=constants).check()


def test_power_zero_is_one(tmp_path: Path) -> None:
    x = np.float32([0, -0.0, 2, -3, np.inf, -np.inf, np.nan])
    run = run_ops([Op("Pow", ["x", "zero"])], {"x": x}, tmp_path, constants={"zero": np.float32(0)})
    run.check()
    assert run.got[0].tolist() == [1] * 7


def test_powers_with_mixed_dtypes(tmp_path: Path) -> None:
    """Integer exponents of floats; the result has the dtype of the base."""
    constants = {
        "two": np.int64(2),
        "three": np.int32(3),
        "half": np.float64(0.5),
        "several": np.int64([0, 1, 5]),
        "square": np.float32(2),
        "cube": np.int64(3),
    }
    inputs = {
        "x": np.abs(numbers(2, 3)) + 0.1,
        "y": integers(3, seed=2) // 10,
        "i": integers(4),
        "j": integers(4, dtype=np.int32),
    }
    ops = [Op("Pow", ["x", name]) for name in ("two", "three", "half", "several", "y")]
    ops += [Op("Pow", [base, name]) for base in ("i", "j") for name in ("square", "cube", "two")]
    run_ops(ops, inputs, tmp_path, constants=constants).check()


@pytest.mark.parametrize("exponent", [1, 2, 3, 7, 13, 31])
def test_integer_powers_multiply(tmp_path: Path, exponent: int) -> None:
    limit = int((2**31 - 1) ** (1 / exponent))
    x = np.array([-1, 0, 1, 2, -2, limit, -limit], np.int32) if limit >= 2 else np.array([-1, 0, 1], np.int32)
    run_ops([Op("Pow", ["x", "e"])], {"x": x}, tmp_path, constants={"e": np.int32(exponent)}).check()


# --- constants and refusals ---------------------------------------------------------------------------------


def test_shape_arithmetic_is_folded_in_int64(tmp_path: Path) -> None:
    """Products beyond int32 are computed as ONNX does, at compile time."""
    large = np.int64(3_000_000_000)
    constants = {"a": large, "b": np.int64(-7), "c": np.int64(100_000_000)}
    model = model_of([Op("Mul", ["a", "b"]), Op("Div", ["a", "c"])], {"x": numbers(1)}, constants)
    lowered = lower_ops(model, [np.int64(-21_000_000_000), np.int64(30)])
    consts = {op.outputs[0].name: op.outputs[0].val for op in lowered.program["main"].operations}
    assert consts["y1"] == 30
    assert consts["y0"] == np.iinfo(np.int32).min, "the package's int32 saturates"


def test_sizes_are_divided_by_one_operation() -> None:
    """They are not negative, so that nothing needs to be corrected."""
    inputs = {"x": numbers(5, 6)}
    ops = [Op("Shape", X), Op("Div", ["y0", "two"]), Op("Mod", ["y0", "two"], {"fmod": 1})]
    model = model_of(ops, inputs, {"two": np.int64(2)}, {"x": ["n", 6]})
    results = [np.int64([5, 6]), np.int64([2, 3]), np.int64([1, 0])]
    program = lower_ops(model, results, dimensions={"n": Dimension(1, 8)}).program
    assert "logical_and" not in {op.op_type for op in program["main"].operations}


def test_bounds_outside_int32_saturate_where_that_is_exact(tmp_path: Path) -> None:
    """Min with int64's largest number, Max with its smallest: x itself."""
    constants = {"low": np.int64(-(2**63)), "high": np.int64(2**63 - 1), "some": np.int64([2**40, 5, 7])}
    x = np.int64([-(2**31), 3, 2**31 - 1])
    ops = [Op("Min", ["x", "high"]), Op("Max", ["x", "low"]), Op("Min", ["some", "x"])]
    run_ops(ops, {"x": x}, tmp_path, constants=constants).check()


def test_bitwise_not(tmp_path: Path) -> None:
    inputs = {"x": integers(9), "y": integers(9, dtype=np.int32)}
    run_ops([Op("BitwiseNot", ["x"]), Op("BitwiseNot", ["y"])], inputs, tmp_path).check()


I = np.ones(3, np.int64)  # noqa: E741
TOO_LARGE = "its input {} is a constant that Core ML's int32 cannot hold"
BITWISE = "MIL has no bitwise operations on integers"
REFUSED: list[tuple[Op, dict[str, Array], dict[str, Array], str]] = [
    (Op("Div", ["x", "c"]), {"x": I}, {"c": np.int64([2, 0, 1])}, "it divides integers by the constant 0"),
    (Op("Mod", ["x", "c"]), {"x": I}, {"c": np.int64(0)}, "it divides integers by the constant 0"),
    (
        Op("Add", ["x", "c"]),
        {"x": I},
        {"c": np.int64(2**40)},
        TOO_LARGE.format(1),
    ),
    (
        Op("Add", ["x", "c"]),
        {"x": numbers(2, 1, 1, 2, 3)},
        {"c": numbers(1, 1, 1, 1, 1, 1)},
        "its result has rank 6 and Core ML tensors have at most 5",
    ),
    (Op("Max", ["c", "x"]), {"x": I}, {"c": np.int64(2**31)}, TOO_LARGE.format(0)),
    (Op("Min", ["x", "c"]), {"x": I}, {"c": np.int64(-(2**32))}, TOO_LARGE.format(1)),
    (Op("Clip", ["x", "c"]), {"x": I}, {"c": np.int64(2**31)}, TOO_LARGE.format(1)),
    (Op("BitwiseAnd", XY), {"x": I, "y": I}, {}, BITWISE),
    (Op("BitwiseXor", XY), {"x": I, "y": I}, {}, BITWISE),
    (
        Op("Pow", XY),
        {"x": I, "y": I},
        {},
        "its base is int64 and its exponent is no constant between 1 and 31",
    ),
    (
        Op("Pow", ["x", "c"]),
        {"x": I},
        {"c": np.float32(0.5)},
        "its base is int64 and its exponent is no constant between 1 and 31",
    ),
]


@pytest.mark.parametrize(("op", "inputs", "constants", "reason"), REFUSED, ids=lambda case: str(case)[:30])
def test_refused(op: Op, inputs: dict[str, Array], constants: dict[str, Array], reason: str) -> None:
    assert refusal(op, inputs, constants) == reason
