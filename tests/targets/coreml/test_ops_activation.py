"""Activations as Core ML packages, against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeq.calibration.types import Array
from edgeq.targets.dimensions import Dimension
from tests.support.coreml_ops import Op, lower_ops, model_of, refusal, run_ops

X = ["x"]

OPS = [
    Op("Relu", X),
    Op("LeakyRelu", X),
    Op("LeakyRelu", X, {"alpha": 1.7}),
    Op("LeakyRelu", X, {"alpha": -0.3}),
    Op("Elu", X),
    Op("Elu", X, {"alpha": 2.5}),
    Op("Selu", X),
    Op("Selu", X, {"alpha": 1.5, "gamma": 2.0}),
    Op("Celu", X),
    Op("Celu", X, {"alpha": 0.4}),
    Op("Celu", X, {"alpha": 3.0}),
    Op("Sigmoid", X),
    Op("HardSigmoid", X),
    Op("HardSigmoid", X, {"alpha": 0.5, "beta": 0.6}),
    Op("HardSwish", X),
    Op("Mish", X),
    Op("Tanh", X),
    Op("Gelu", X),
    Op("Gelu", X, {"approximate": "tanh"}),
    Op("com.microsoft.Gelu", X),
    Op("com.microsoft.FastGelu", X),
    Op("com.microsoft.FastGelu", ["x", "bias"]),
    Op("com.microsoft.BiasGelu", ["x", "bias"]),
    Op("com.microsoft.QuickGelu", X),
    Op("com.microsoft.QuickGelu", X, {"alpha": 1.0}),
    Op("com.microsoft.QuickGelu", X, {"alpha": 2.5}),
    Op("Softplus", X),
    Op("Softsign", X),
    Op("Erf", X),
    Op("ThresholdedRelu", X),
    Op("ThresholdedRelu", X, {"alpha": 0.0}),
    Op("ThresholdedRelu", X, {"alpha": -0.5}),
    Op("Shrink", X),
    Op("Shrink", X, {"bias": 0.25, "lambd": 1.0}),
    Op("Softmax", X),
    Op("Softmax", X, {"axis": 1}),
    Op("LogSoftmax", X),
    Op("LogSoftmax", X, {"axis": 0}),
    Op("Hardmax", X),
    Op("Hardmax", X, {"axis": -3}),
]
# FastGelu and the like are approximated with tables by ONNX Runtime, Erf and Tanh with polynomials.
CLOSE = {"rtol": 1e-5, "atol": 2e-6}


def numbers(*shape: int, scale: float = 3.0, seed: int = 0) -> Array:
    x = (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)
    x.flat[:8] = [0.0, 1.0, -1.0, 0.5, -0.5, 3.0, -3.0, 1e-6]  # thresholds of the ops above
    return x


BIAS = {"bias": numbers(8, seed=3)}


@pytest.mark.parametrize("ios", [16, 18])
def test_activations(tmp_path: Path, ios: int) -> None:
    run_ops(OPS, {"x": numbers(4, 3, 8)}, tmp_path, constants=BIAS, ios=ios).check(**CLOSE)


def test_activations_of_large_and_tiny_numbers(tmp_path: Path) -> None:
    x = np.array([[[-80, -20, -1e-20, 1e-20, 12, 40, 80, 1e4]]], np.float32)
    ops = [op for op in OPS if op.op_type != "Selu"]
    run_ops(ops, {"x": x}, tmp_path, constants=BIAS).check(rtol=1e-5, atol=1e-5)


def test_activations_with_a_dynamic_batch(tmp_path: Path) -> None:
    axes, sizes = {"x": ["n", 3, 8]}, {"n": Dimension(1, 6)}
    for batch in (1, 5):
        x = {"x": numbers(batch, 3, 8, seed=batch)}
        run_ops(OPS, x, tmp_path / str(batch), constants=BIAS, axes=axes, dimensions=sizes).check(**CLOSE)


def test_activations_of_a_scalar(tmp_path: Path) -> None:
    ops = [op for op in OPS if "max" not in op.op_type and "microsoft" not in op.op_type]
    run_ops(ops, {"x": np.array(-0.75, np.float32)}, tmp_path).check(**CLOSE)


def test_activations_in_float16_keep_their_range(tmp_path: Path) -> None:
    """Nothing overflows, and the negative side of softplus does not vanish."""
    x = np.array([[[-6000, -8, -2, -1e-3, 0, 1e-3, 9, 12, 300, 6000]]], np.float32)
    ops = [op for op in OPS if "bias" not in op.inputs and op.op_type != "Selu"]
    run_ops(ops, {"x": x}, tmp_path, arithmetic="float16").check(rtol=4e-3, atol=4e-3)


@pytest.mark.parametrize("ios", [16, 18])
def test_activations_of_float16_models(tmp_path: Path, ios: int) -> None:
    """The constants that handlers make have the dtype of the model."""
    constants = {"bias": BIAS["bias"].astype(np.float16)}
    ops = [op for op in OPS if op.op_type != "Celu"]  # float32 only until opset 28
    x = {"x": numbers(4, 3, 8).astype(np.float16)}
    run_ops(ops, x, tmp_path, constants=constants, ios=ios).check(rtol=5e-3, atol=5e-3)


def test_log_softmax_in_float16_of_unlikely_classes(tmp_path: Path) -> None:
    """Their probability is 0 in float16, their logarithm is not -inf."""
    x = np.array([[0, -20, -60, 5], [30, -30, 0, 0]], np.float32)
    result = run_ops([Op("LogSoftmax", X)], {"x": x}, tmp_path, arithmetic="float16")
    result.check(rtol=2e-3, atol=2e-3)
    assert result.wanted[0].min() < -60


def test_hardmax_takes_the_first_of_equal_maxima(tmp_path: Path) -> None:
    x = np.array([[2, 5, 5, 1], [7, 7, 7, 7]], np.float32)
    run = run_ops([Op("Hardmax", X), Op("Hardmax", X, {"axis": 0})], {"x": x}, tmp_path)
    run.check()
    assert run.got[0].tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize("rank", [1, 2, 3, 4, 5])
def test_prelu_with_every_slope_that_broadcasts(tmp_path: Path, rank: int) -> None:
    shape = (2, 3, 4, 2, 3)[:rank]
    shapes = {(1,) * n for n in range(rank + 1)}
    for first in range(rank):
        shapes.add(shape[first:])  # trailing axes
        shapes.add(shape[first : first + 1] + (1,) * (rank - 1 - first))  # one axis
    slopes = {f"s{i}": numbers(*s, seed=i) if s else np.float32(0.3) for i, s in enumerate(sorted(shapes))}
    slopes = {name: np.asarray(slope, np.float32) for name, slope in slopes.items()}
    computed = numbers(*shape, seed=9)
    ops = [Op("PRelu", ["x", name]) for name in [*slopes, "computed"]]
    inputs = {"x": numbers(*shape, seed=5), "computed": computed}
    run_ops(ops, inputs, tmp_path, constants=slopes).check()


def test_prelu_per_channel_is_mils_own() -> None:
    inputs = {"x": numbers(1, 3, 4, 4)}
    slope = {"s": numbers(3, 1, 1, seed=2)}
    program = lower_ops(model_of([Op("PRelu", ["x", "s"])], inputs, slope), [inputs["x"]]).program
    assert [op.op_type for op in program["main"].operations if op.op_type != "const"] == ["prelu"]


def test_constant_activations_are_folded() -> None:
    op = Op("Elu", ["c"], {"alpha": 2.0})
    constants = {"c": np.float32([-1, 2])}
    model = model_of([op], {"x": np.zeros(2, np.float32)}, constants)
    program = lower_ops(model, [constants["c"]]).program
    assert {o.op_type for o in program["main"].operations} == {"const", "identity"}


REFUSED = [
    (Op("Celu", X, {"alpha": -1.0}), np.float32, "alpha = -1 is not positive"),
    (Op("Relu", X), np.int32, "its input 0 is int32, and it is lowered for float or float16 only"),
    (Op("Shrink", X), np.int64, "its input 0 is int64, and it is lowered for float or float16 only"),
]


@pytest.mark.parametrize(("op", "dtype", "reason"), REFUSED, ids=lambda case: str(case)[:40])
def test_refused(op: Op, dtype: type, reason: str) -> None:
    assert refusal(op, {"x": np.ones((2, 3), dtype)}) == reason
