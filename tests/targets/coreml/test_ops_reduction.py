"""Reductions, ArgMax, TopK and CumSum as Core ML packages, against ONNX Runtime."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model, Source
from edgeq.targets.coreml.frontend.lower import lower
from edgeq.targets.coreml.frontend.node import RefusedNodeError
from edgeq.targets.coreml.interpreter.engine import Interpreter
from edgeq.targets.coreml.interpreter.program import read_package
from edgeq.targets.coreml.options import CoreMLOptions
from edgeq.targets.coreml.package.write import write_package
from edgeq.targets.coreml.ports import from_package, to_package
from edgeq.targets.dimensions import Dimension
from tests.support.coreml_ops import Op, by_onnxruntime, refusal, run_ops

FLOAT_ONLY = ("ReduceMean", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp")
INTEGER = ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceSumSquare")
EVERY = (*FLOAT_ONLY, *INTEGER)
AXES = {
    "none": np.array([], np.int64),
    "first": np.array([0]),
    "last": np.array([-1]),
    "two": np.array([2, 0]),
    "all": np.array([0, 1, 2]),
}


def positive(*shape: int, seed: int = 0) -> Array:
    """Sums that have a logarithm."""
    return np.random.default_rng(seed).uniform(0.2, 2.0, shape).astype(np.float32)


def integers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(-3, 4, shape)


def grid(op_types: tuple[str, ...]) -> list[Op]:
    return [
        Op(op_type, ["x", axes], {"keepdims": keep})
        for op_type, axes, keep in product(op_types, AXES, (0, 1))
    ]


@pytest.mark.parametrize("ios", [15, 18])
def test_reductions_of_floats(tmp_path: Path, ios: int) -> None:
    ops = [*grid(EVERY), *(Op(op_type, ["x"]) for op_type in EVERY)]
    run_ops(ops, {"x": positive(3, 4, 5)}, tmp_path, constants=AXES, ios=ios).check(rtol=2e-5)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_reductions_of_integers(tmp_path: Path, dtype: Any) -> None:
    # ONNX Runtime has these for both widths
    op_types = tuple(op for op in INTEGER if op != "ReduceSumSquare" or dtype == np.int32)
    x = integers(2, 3, 4).astype(dtype)
    run_ops(grid(op_types), {"x": x}, tmp_path, constants=AXES).check()


def test_extremes_of_booleans(tmp_path: Path) -> None:
    x = integers(2, 3, 4) > 1
    run_ops(grid(("ReduceMax", "ReduceMin")), {"x": x}, tmp_path, constants=AXES).check()


@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 4)])
def test_no_axes_leave_the_elementwise_part(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Squares, magnitudes and logarithms are taken all the same."""
    logarithms = [op_type for op_type in EVERY if op_type == "ReduceLogSum"]
    others = [op_type for op_type in EVERY if op_type not in logarithms]
    for op_types, x in ((logarithms, positive(*shape)), (others, -positive(*shape))):
        noop = {"noop_with_empty_axes": 1}
        ops = [Op(op_type, ["x", "none"], noop) for op_type in op_types]
        run_ops(ops, {"x": x}, tmp_path / op_types[0], constants=AXES).check()


def test_scalars(tmp_path: Path) -> None:
    ops = [Op(op_type, ["x"], {"keepdims": keep}) for op_type in EVERY for keep in (0, 1)]
    run_ops(ops, {"x": np.array(1.75, np.float32)}, tmp_path).check()


@pytest.mark.parametrize("sizes", [(1, 2), (4, 7)])
def test_dynamic_sizes(tmp_path: Path, sizes: tuple[int, int]) -> None:
    n, t = sizes
    ops = [
        *(op for op in grid(EVERY) if op.inputs[1] != "none"),
        Op("ArgMax", ["x"], {"axis": 1}),
        Op("CumSum", ["x", "axis"]),
    ]
    constants = {**AXES, "axis": np.array(1)}
    limits = {"n": Dimension(1, 8), "t": Dimension(1, 16)}
    x = {"x": positive(n, t, 3)}
    run_ops(ops, x, tmp_path, constants=constants, axes={"x": ["n", "t", 3]}, dimensions=limits).check(
        rtol=2e-5
    )


def test_float16_packages_keep_the_range(tmp_path: Path) -> None:
    """The sum of squares would overflow float16, and so would the exponentials."""
    x = np.full((2, 64), 30, np.float32)
    ops = [Op(op, ["x", "last"]) for op in ("ReduceL2", "ReduceLogSumExp", "ReduceMean", "ReduceL1")]
    run_ops(ops, {"x": x}, tmp_path, constants=AXES, arithmetic="float16").check(rtol=2e-3)


ARGS = [
    Op(op_type, ["x"], {"axis": axis, "keepdims": keep, "select_last_index": last})
    for op_type, axis, keep, last in product(("ArgMax", "ArgMin"), (0, 1, -1), (0, 1), (0, 1))
]


def test_positions_of_extremes(tmp_path: Path) -> None:
    run_ops([*ARGS, Op("ArgMax", ["x"])], {"x": positive(3, 4, 5)}, tmp_path).check()


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_positions_among_equal_integers(tmp_path: Path, dtype: Any) -> None:
    """First and last of many: what CLIP needs to find the end of its text."""
    run_ops(ARGS, {"x": integers(3, 6, 5).astype(dtype)}, tmp_path).check()


@pytest.mark.parametrize("size", [1, 9])
def test_first_of_equal_integers_on_a_dynamic_axis(tmp_path: Path, size: int) -> None:
    ops = [Op("ArgMax", ["x"], {"axis": 1, "keepdims": 0, "select_last_index": last}) for last in (0, 1)]
    x = {"x": integers(2, size).astype(np.int64)}
    limits = {"n": Dimension(1, 4), "t": Dimension(1, 16)}
    run_ops(ops, x, tmp_path, axes={"x": ["n", "t"]}, dimensions=limits).check()


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int64])
def test_cumulative_sums(tmp_path: Path, dtype: Any) -> None:
    constants = {f"a{axis}": np.array(axis) for axis in (0, 1, -1, -3)}
    ops = [
        Op("CumSum", ["x", axis], {"exclusive": exclusive, "reverse": reverse})
        for axis, exclusive, reverse in product(constants, (0, 1), (0, 1))
    ]
    x = integers(3, 4, 5, seed=1).astype(dtype)
    run_ops(ops, {"x": x}, tmp_path, constants=constants).check()


def top_k_model(x: Array, k: int, **attributes: Any) -> onnx.ModelProto:
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        [helper.make_node("TopK", ["x", "k"], ["v", "i"], **attributes)],
        "g",
        [helper.make_tensor_value_info("x", kind, x.shape)],
        [
            helper.make_tensor_value_info("v", kind, None),
            helper.make_tensor_value_info("i", TensorProto.INT64, None),
        ],
        [numpy_helper.from_array(np.array([k]), "k")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def package_of(proto: onnx.ModelProto, inputs: dict[str, Array], folder: Path) -> dict[str, Array]:
    """The package's outputs."""
    lowered = lower(Model(ir.from_proto(proto), Source("onnx", "test", "0" * 64)), ios=18)
    path = folder / "topk.mlpackage"
    write_package(lowered, path, ios=18, arithmetic="float32", options=CoreMLOptions())
    feeds = to_package(lowered.signature, inputs)
    return from_package(lowered.signature, Interpreter(read_package(path)).run(feeds))


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_top_k(tmp_path: Path, largest: int, axis: int, dtype: Any) -> None:
    x = np.random.default_rng(0).permutation(4 * 3 * 6).reshape(4, 3, 6).astype(dtype)
    proto = top_k_model(x, 3, largest=largest, axis=axis)
    results = package_of(proto, {"x": x}, tmp_path)
    for w, g in zip(by_onnxruntime(proto, {"x": x}), (results["v"], results["i"]), strict=True):
        assert w.dtype == g.dtype
        np.testing.assert_array_equal(w, g)


REFUSED = [
    (Op("ReduceMean", ["x"]), integers(2, 2), "its input 0 is int64"),
    (Op("ReduceL2", ["x"]), integers(2, 2).astype(np.int32), "its input 0 is int32"),
    (Op("ReduceSum", ["x", "x"]), np.array([0]), "its axes is computed at run time"),
    (Op("ReduceSum", ["x"]), np.zeros((2, 0), np.float32), "it reduces an empty tensor"),
    (Op("ReduceSum", ["x"], {"noop_with_empty_axes": 1}), positive(1, 1, 1, 1, 2), "of rank 5"),
    (Op("CumSum", ["x", "x0"]), positive(2), "its axis is computed at run time"),
]


@pytest.mark.parametrize(("op", "x", "reason"), REFUSED, ids=[str(op) for op, *_ in REFUSED])
def test_refusals(op: Op, x: Array, reason: str) -> None:
    assert reason in refusal(op, {"x": x, "x0": np.array(0)})


@pytest.mark.parametrize("k", [0, 5])
def test_top_k_of_too_many_or_none_is_refused(tmp_path: Path, k: int) -> None:
    with pytest.raises(RefusedNodeError, match=f"k is {k} on an axis of size 4"):
        package_of(top_k_model(positive(4), k), {"x": positive(4)}, tmp_path)
