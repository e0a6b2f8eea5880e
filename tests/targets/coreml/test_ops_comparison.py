"""Comparison, logic, Where and Cast as Core ML packages, against ONNX Runtime."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from edgeq.calibration.types import Array
from edgeq.targets.dimensions import Dimension
from tests.support.coreml_ops import Op, lower_ops, model_of, refusal, run_ops

X, XY = ["x"], ["x", "y"]
COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
LOGIC = ("And", "Or", "Xor")


def few(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Array:
    """Numbers that are often equal; booleans of both kinds."""
    drawn = np.random.default_rng(seed).integers(-2, 3, shape)
    return np.asarray(drawn > 0 if dtype is bool else drawn, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int64])
@pytest.mark.parametrize(("left", "right"), [((4, 5), (4, 5)), ((), (3,)), ((2, 1, 3), (4, 1)), ((), ())])
def test_comparisons(tmp_path: Path, dtype: type, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    inputs = {"x": few(*left, dtype=dtype), "y": few(*right, seed=1, dtype=dtype)}
    constants = {"c": few(*right, seed=2, dtype=dtype)}
    ops = [Op(name, names) for name in COMPARISONS for names in (XY, ["x", "c"], ["c", "x"])]
    run_ops(ops, inputs, tmp_path, constants=constants).check()


@pytest.mark.parametrize(("left", "right"), [((4, 5), (4, 5)), ((), (3,)), ((2, 1, 3), (4, 1)), ((), ())])
def test_logic(tmp_path: Path, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    inputs = {"x": few(*left, dtype=bool), "y": few(*right, seed=1, dtype=bool)}
    ops = [Op(name, XY) for name in (*LOGIC, "Equal")] + [Op("Not", X)]
    run_ops(ops, inputs, tmp_path).check()


def test_comparisons_of_what_is_no_number(tmp_path: Path) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0], np.float32)
    ops = [Op(name, XY) for name in COMPARISONS] + [Op("IsNaN", X), Op("IsInf", X)]
    ops += [Op("IsInf", X, {"detect_positive": p, "detect_negative": n}) for p, n in product((0, 1), (0, 1))]
    run_ops(ops, {"x": x, "y": x[::-1].copy()}, tmp_path).check()


def test_comparison_with_int64s_end(tmp_path: Path) -> None:
    """Beyond int32 the constant saturates, which no number of the package reaches but int32's own ends."""
    ends = np.iinfo(np.int64)
    constants = {"low": np.int64(ends.min), "high": np.int64(ends.max)}
    ops = [Op(name, ["x", end]) for name in COMPARISONS for end in constants]
    run_ops(ops, {"x": np.int64([-(2**31) + 1, 0, 2**31 - 2])}, tmp_path, constants=constants).check()


# --- Where --------------------------------------------------------------------------------------------------

SHAPES = [
    ((3, 4), (3, 4), (3, 4)),
    ((3, 4), (), ()),
    ((3, 4), (1,), (4,)),
    ((2, 1, 4), (3, 1), (4,)),
    ((1,), (2, 3), (3,)),
    ((), (2, 3), ()),
    ((5,), (2, 1), (2, 5)),
    ((2, 1, 3, 1, 2), (4, 1), (1,)),
    ((), (), ()),
]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_where_broadcasts_all_three(tmp_path: Path, shapes: tuple[tuple[int, ...], ...]) -> None:
    condition, left, right = shapes
    inputs = {"c": few(*condition, dtype=bool)}
    constants: dict[str, Array] = {}
    ops = []
    for name, dtype in (("f", np.float32), ("i", np.int64), ("j", np.int32)):
        inputs |= {f"{name}x": few(*left, seed=1, dtype=dtype), f"{name}y": few(*right, seed=2, dtype=dtype)}
        constants[f"{name}k"] = few(*left, seed=3, dtype=dtype)
        ops += [Op("Where", ["c", f"{name}x", f"{name}y"]), Op("Where", ["c", f"{name}k", f"{name}y"])]
        ops += [Op("Where", ["c", f"{name}y", f"{name}k"]), Op("Where", ["c", f"{name}k", f"{name}k"])]
    run_ops(ops, inputs, tmp_path, constants=constants).check()


def test_where_of_booleans(tmp_path: Path) -> None:
    """ONNX Runtime has no kernel for them: compared with numpy."""
    inputs: dict[str, Array] = {}
    for index, shapes in enumerate(SHAPES):
        inputs |= {f"{n}{index}": few(*s, seed=index, dtype=bool) for n, s in zip("cab", shapes, strict=True)}
    names = [[f"{n}{index}" for n in "cab"] for index in range(len(SHAPES))]
    wanted = [np.asarray(np.where(*(inputs[n] for n in triple))) for triple in names]
    run_ops([Op("Where", triple) for triple in names], inputs, tmp_path, wanted=wanted).check()


def test_where_keeps_infinities(tmp_path: Path) -> None:
    """The attention mask: 0 or minus infinity."""
    constants = {"zero": np.float32(0), "infinite": np.float32(-np.inf), "lowest": np.finfo(np.float32).min}
    ops = [Op("Where", ["c", "zero", end]) for end in ("infinite", "lowest")]
    ops += [Op("Where", ["c", "infinite", "x"]), Op("Where", ["c", "x", "infinite"])]
    inputs = {"c": few(2, 1, 3, 3, dtype=bool), "x": few(2, 4, 3, 3)}
    inputs["x"][0, 0, 0] = [np.inf, -np.inf, np.nan]
    constants["lowest"] = np.float32(constants["lowest"])
    run_ops(ops, inputs, tmp_path, constants=constants).check()


def test_where_keeps_the_sign_of_zero(tmp_path: Path) -> None:
    constants = {"minus": np.float32(-0.0)}
    run = run_ops(
        [Op("Where", ["c", "minus", "x"])],
        {"c": few(5, dtype=bool), "x": np.float32([-0.0])},
        tmp_path,
        constants=constants,
    )
    assert np.signbit(run.got[0]).all()


def test_where_with_dynamic_dimensions(tmp_path: Path) -> None:
    axes = {"c": ["n", 1, "s", "s"], "x": ["n", 2, "s", "s"], "v": ["s"]}
    sizes = {"n": Dimension(1, 4), "s": Dimension(1, 9)}
    constants = {"zero": np.float32(0), "low": np.float32(-3e4), "row": np.float32([[1]])}
    ops = [Op("Where", names) for names in (
        ["c", "x", "low"], ["c", "low", "x"], ["c", "zero", "low"], ["c", "row", "v"], ["c", "v", "row"],
        ["c", "v", "v"])]  # fmt: skip
    for n, s in ((1, 1), (1, 5), (3, 4)):
        inputs = {"c": few(n, 1, s, s, dtype=bool), "x": few(n, 2, s, s), "v": few(s)}
        folder = tmp_path / f"{n}x{s}"
        run_ops(ops, inputs, folder, constants=constants, axes=axes, dimensions=sizes).check()


# --- Cast ---------------------------------------------------------------------------------------------------

TYPES = {
    "f": (TensorProto.FLOAT, np.float32),
    "h": (TensorProto.FLOAT16, np.float16),
    "i": (TensorProto.INT32, np.int32),
    "l": (TensorProto.INT64, np.int64),
    "b": (TensorProto.BOOL, np.bool_),
}
VALUES = [0.0, -0.0, 0.4, -0.4, 0.5, 1.0, 1.7, -1.7, 2.5, -2.5, 100.9, -100.9, 2047.0]


@pytest.mark.parametrize("ios", [16, 18])
def test_casts(tmp_path: Path, ios: int) -> None:
    """Towards zero to integers, != 0 to booleans."""
    inputs = {name: np.float32(VALUES).astype(dtype) for name, (_, dtype) in TYPES.items()}
    ops = [Op("Cast", [name], {"to": to}) for name in TYPES for to, _ in TYPES.values()]
    ops += [Op("CastLike", [name, like]) for name in TYPES for like in TYPES]
    run_ops(ops, inputs, tmp_path, ios=ios).check()


def test_cast_through_float16_rounds(tmp_path: Path) -> None:
    """float32 → float16 as an output is rounded to even, and saturates to infinity."""
    x = np.float32([1 + 2**-11, 1 + 3 * 2**-11, 65504, 65520, 1e6, -1e6, 1e-8, 6e-8])
    run_ops([Op("Cast", X, {"to": TensorProto.FLOAT16})], {"x": x}, tmp_path).check(rtol=0, atol=0)


def test_casts_to_other_dtypes_only_at_compile_time() -> None:
    constants = {"k": np.float32([1.5, 2.5])}
    model = model_of([Op("Cast", ["k"], {"to": TensorProto.DOUBLE})], {"x": few(1)}, constants)
    lowered = lower_ops(model, [np.zeros(2, np.float64)])
    assert {op.op_type for op in lowered.program["main"].operations} == {"const", "identity"}


WITH_OTHER_RULES = "it casts {} to {}, which Core ML does with other rules"
REFUSED: list[tuple[Op, Array, str]] = [
    (Op("Cast", X, {"to": TensorProto.UINT8}), few(3), WITH_OTHER_RULES.format("float", "uint8")),
    (
        Op("Cast", X, {"to": TensorProto.INT8}),
        few(3, dtype=np.int64),
        WITH_OTHER_RULES.format("int64", "int8"),
    ),
    (Op("Cast", X, {"to": TensorProto.DOUBLE}), few(3), WITH_OTHER_RULES.format("float", "double")),
    (Op("Cast", X, {"to": TensorProto.BFLOAT16}), few(3), WITH_OTHER_RULES.format("float", "bfloat16")),
    (Op("Cast", X, {"to": TensorProto.UINT64}), few(3), WITH_OTHER_RULES.format("float", "uint64")),
    (Op("Cast", X, {"to": TensorProto.STRING}), few(3), WITH_OTHER_RULES.format("float", "string")),
]


@pytest.mark.parametrize(("op", "x", "reason"), REFUSED, ids=lambda case: str(case)[:40])
def test_refused(op: Op, x: Array, reason: str) -> None:
    assert refusal(op, {"x": x}) == reason
