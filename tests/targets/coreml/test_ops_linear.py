"""Matrix products as Core ML packages, against ONNX Runtime."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.node import RefusedNodeError
from edgeq.targets.dimensions import Dimension
from tests.support.coreml_ops import Op, lower_ops, model_of, refusal, run_ops

CLOSE = {"rtol": 1e-5, "atol": 2e-6}


def floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def shaped(*shapes: tuple[int, ...]) -> dict[str, Array]:
    """One input for each shape, named after it: x4_5 is [4, 5]; w4_5 when it is to be a constant."""
    return {name(shape): floats(*shape) for shape in shapes}


def name(shape: tuple[int, ...], prefix: str = "x") -> str:
    return prefix + "_".join(str(size) for size in shape)


MATMULS = [
    ((4, 5), (5, 3)),
    ((2, 4, 5), (5, 3)),
    ((2, 3, 4, 5), (5, 3)),
    ((2, 1, 4, 5), (3, 5, 3)),
    ((1, 4, 5), (2, 3, 5, 2)),
    ((2, 2, 1, 4, 5), (3, 5, 2)),
    ((5,), (5,)),
    ((5,), (5, 3)),
    ((5,), (2, 5, 3)),
    ((4, 5), (5,)),
    ((2, 3, 4, 5), (5,)),
]


def test_matmul_of_two_inputs(tmp_path: Path) -> None:
    inputs = shaped(*{shape for pair in MATMULS for shape in pair})
    run_ops([Op("MatMul", [name(a), name(b)]) for a, b in MATMULS], inputs, tmp_path).check(**CLOSE)


@pytest.mark.parametrize("ios", [15, 18])
def test_matmul_with_a_constant_on_either_side(tmp_path: Path, ios: int) -> None:
    shapes = {shape for pair in MATMULS for shape in pair}
    constants = {name(shape, "w"): floats(*shape, seed=1) for shape in shapes}
    ops = [Op("MatMul", [name(a), name(b, "w")]) for a, b in MATMULS]
    ops += [Op("MatMul", [name(a, "w"), name(b)]) for a, b in MATMULS]
    run_ops(ops, shaped(*shapes), tmp_path, constants=constants, ios=ios).check(**CLOSE)


GEMMS = [
    {},
    {"transA": 1},
    {"transB": 1},
    {"transA": 1, "transB": 1},
    {"alpha": 0.25, "beta": 0.5},
    {"alpha": 2.0, "transB": 1},
    {"beta": -1.5, "transA": 1},
    {"beta": 0.0},
]
OFFSETS = [None, (), (1,), (3,), (1, 3), (4, 1), (4, 3), (1, 1)]


@pytest.mark.parametrize("constant", [False, True])
def test_gemm(tmp_path: Path, constant: bool) -> None:
    inputs = {"a0": floats(4, 5), "a1": floats(5, 4)}
    given = {"b0": floats(5, 3), "b1": floats(3, 5)}
    given |= {name(shape, "c"): floats(*shape) for shape in OFFSETS if shape}
    constants = {"c": floats()}
    ops = []
    for attributes in GEMMS:
        a, b = f"a{attributes.get('transA', 0)}", f"b{attributes.get('transB', 0)}"
        for shape in OFFSETS:
            third = [] if shape is None else [name(shape, "c")]
            ops.append(Op("Gemm", [a, b, *third], attributes))
    if constant:
        constants |= given
    else:
        inputs |= given
    run_ops(ops, inputs, tmp_path, constants=constants).check(**CLOSE)


def test_gemm_is_one_linear_with_a_constant_weight() -> None:
    constants = {"b": floats(5, 3), "c": floats(3)}
    ops = [Op("Gemm", ["x", "b", "c"]), Op("MatMul", ["x", "b"])]
    lowered = lower_ops(model_of(ops, {"x": floats(4, 5)}, constants), [floats(4, 3)] * 2)
    assert operations(lowered.program) == {"linear": 2}


def operations(program: Any) -> Counter[str]:
    """MIL op types but constants."""
    found = Counter(op.op_type for op in program.functions["main"].operations)
    del found["const"]
    return found


@pytest.mark.parametrize("flipped", [0, 1])
def test_a_compressed_weight_stays_compressed(tmp_path: Path, flipped: int) -> None:
    codes = np.random.default_rng(0).integers(-7, 8, (3, 5) if flipped else (5, 3)).astype(np.int8)
    constants = {"q": codes, "s": np.float32([0.5, 0.25, 0.125]), "z": np.zeros(3, np.int8)}
    ops = [Op("DequantizeLinear", ["q", "s", "z"], {"axis": 0 if flipped else 1})]
    ops.append(Op("Gemm", ["x", "y0"], {"transB": flipped}))
    if not flipped:
        ops.append(Op("MatMul", ["x", "y0"]))
    inputs = {"x": floats(4, 5)}
    run = run_ops(ops, inputs, tmp_path, constants=constants)
    run.check(**CLOSE)
    found = operations(lower_ops(model_of(ops, inputs, constants), run.wanted).program)
    assert sum(count for op, count in found.items() if op.startswith("constexpr_")) == 1
    assert found["linear"] == flipped
    assert found["matmul"] == 2 * (1 - flipped)


def test_fused_matmul(tmp_path: Path) -> None:
    inputs = {"a": floats(2, 4, 5), "at": floats(2, 5, 4), "b": floats(2, 5, 3), "bt": floats(2, 3, 5)}
    inputs |= {"v": floats(5), "w": floats(5, 3)}
    fused = "com.microsoft.FusedMatMul"
    ops = [
        Op(fused, ["a", "b"], {"alpha": 0.5}),
        Op(fused, ["at", "b"], {"transA": 1}),
        Op(fused, ["a", "bt"], {"transB": 1}),
        Op(fused, ["at", "bt"], {"transA": 1, "transB": 1, "alpha": 3.0}),
        Op(fused, ["a", "w"]),
    ]
    run_ops(ops, inputs, tmp_path).check(**CLOSE)


EQUATIONS = [
    ("ij,jk->ik", ["x4_5", "x5_3"]),
    ("ij,jk->ki", ["x4_5", "x5_3"]),
    ("ij,jk", ["x4_5", "x5_3"]),
    ("ij,ij->", ["x4_5", "x4_5"]),
    ("ij,ij->ij", ["x4_5", "x4_5"]),
    ("ij->ji", ["x4_5"]),
    ("ij->j", ["x4_5"]),
    ("ij->", ["x4_5"]),
    ("ba", ["x4_5"]),
    ("i,j->ij", ["x5", "x3"]),
    ("i,i", ["x5", "x5"]),
    ("bij,bjk->bik", ["x2_4_5", "x2_5_3"]),
    ("bij, bjk -> bki", ["x2_4_5", "x2_5_3"]),
    ("...ij,...jk->...ik", ["x2_4_5", "x1_5_3"]),
    ("...ij,jk", ["x2_4_5", "x5_3"]),
    ("...ij->...ji", ["x2_4_5"]),
    ("...i,i->...", ["x2_4_5", "x5"]),
    ("bhid,bhjd->bhij", ["x2_3_4_5", "x2_3_6_5"]),
    ("bhij,bhjd->bihd", ["x2_3_6_4", "x2_3_4_5"]),
    ("bihd,bjhd->bhij", ["x2_4_3_5", "x2_6_3_5"]),
    ("bcxy,dcxy->bd", ["x2_3_4_5", "x6_3_4_5"]),
    ("abc,cd,de->abe", ["x2_4_5", "x5_3", "x3_6"]),
    ("ij,kl->ijkl", ["x4_5", "x5_3"]),
    ("bxd,yd->bxy", ["x2_4_5", "x6_5"]),
    ("ii->i", ["x4_4"]),
    ("ii->", ["x4_4"]),
    ("...ii->...i", ["x2_4_4"]),
    ("ii,ij->j", ["x4_4", "x4_5"]),
    ("bij,kij->bk", ["x2_4_5", "x3_4_5"]),
    ("bij,bik->b", ["x2_4_5", "x2_4_3"]),
]


def test_einsum(tmp_path: Path) -> None:
    names = {operand for _, operands in EQUATIONS for operand in operands}
    inputs = shaped(*(tuple(int(size) for size in operand[1:].split("_")) for operand in names))
    ops = [Op("Einsum", operands, {"equation": equation}) for equation, operands in EQUATIONS]
    run_ops(ops, inputs, tmp_path).check(**CLOSE)


def test_dynamic_batch_and_sequence(tmp_path: Path) -> None:
    inputs = {"x": floats(2, 4, 5), "h": floats(2, 4, 3, 5), "k": floats(2, 4, 3, 5, seed=1)}
    axes = {"x": ("b", "s", 5), "h": ("b", "s", 3, 5), "k": ("b", "s", 3, 5)}
    ops = [
        Op("MatMul", ["x", "w"]),
        Op("Einsum", ["h", "k"], {"equation": "bihd,bjhd->bhij"}),
        Op("Einsum", ["h", "v"], {"equation": "bshd,hde->bse"}),
        Op("Einsum", ["h", "v"], {"equation": "bshd,hde->bsde"}),
        Op("Einsum", ["h", "k"], {"equation": "bshd,bshe->sde"}),
    ]
    run_ops(
        ops,
        inputs,
        tmp_path,
        constants={"w": floats(5, 7), "v": floats(3, 5, 4)},
        axes=axes,
        dimensions={"b": Dimension(1, 4), "s": Dimension(1, 16)},
    ).check(**CLOSE)


def test_half_precision_stays_close(tmp_path: Path) -> None:
    ops = [Op("Gemm", ["x", "b", "c"], {"alpha": 0.5}), Op("MatMul", ["x", "b"])]
    constants = {"b": floats(5, 3), "c": floats(3)}
    run_ops(ops, {"x": floats(4, 5)}, tmp_path, constants=constants, arithmetic="float16").check(
        rtol=1e-2, atol=1e-2
    )


INTEGERS = {"x": np.ones((4, 4), np.int32)}
REFUSED = [
    (Op("MatMul", ["x", "x"]), INTEGERS, "int32"),
    (Op("Gemm", ["x", "x"]), INTEGERS, "int32"),
    (Op("Einsum", ["x", "x"], {"equation": "ij,jk->ik"}), INTEGERS, "int32"),
    (
        Op("Einsum", ["f", "g"], {"equation": "abcdx,xefgh->abcdefgh"}),
        {"f": floats(1, 1, 1, 1, 2), "g": floats(2, 1, 1, 1, 1)},
        "more than 5 dimensions",
    ),
]


@pytest.mark.parametrize(("op", "inputs", "reason"), REFUSED, ids=lambda value: str(value)[:40])
def test_refusals(op: Op, inputs: dict[str, Array], reason: str) -> None:
    assert reason in refusal(op, inputs)


# ONNX's own checks do not know these.
UNCHECKED = [
    (Op("Einsum", ["x"], {"equation": "ij->ii"}), "repeats a label"),
    (Op("com.microsoft.FusedMatMul", ["x", "x"], {"transBatchA": 1}), "transBatchA=1 is not supported"),
]


@pytest.mark.parametrize(("op", "reason"), UNCHECKED, ids=str)
def test_refusals_of_what_onnx_does_not_check(op: Op, reason: str) -> None:
    with pytest.raises(RefusedNodeError, match=reason):
        lower_ops(model_of([op], {"x": floats(4, 4)}, {}), [floats(4, 4)])
