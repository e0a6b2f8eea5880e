"""Chains through rank 6 as Core ML packages of rank 5 at most, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.lower import Lowered
from edgeq.targets.coreml.frontend.node import RefusedNodeError
from edgeq.targets.coreml.interpreter.engine import Interpreter
from edgeq.targets.coreml.interpreter.program import read_package
from edgeq.targets.coreml.options import CoreMLOptions
from edgeq.targets.coreml.package.write import write_package
from edgeq.targets.coreml.ports import from_package, to_package
from edgeq.targets.dimensions import Dimension
from tests.support.coreml_ops import by_onnxruntime, lower_ops

Step = tuple[str, Array | None, dict[str, object]]
DIMENSIONS = {"n": Dimension(1, 4), "h": Dimension(8, 32)}


def to(*sizes: int) -> Step:
    return ("Reshape", np.array(sizes, np.int64), {})


def permute(*perm: int) -> Step:
    return ("Transpose", None, {"perm": list(perm)})


def take(axis: int, indices: Array) -> Step:
    return ("Gather", indices, {"axis": axis})


def chain(steps: Sequence[Step], x: Array, axes: Sequence[int | str]) -> onnx.ModelProto:
    """One step after the other; only the last result is an output."""
    nodes, constants, name = [], [], "x"
    for index, (op_type, parameter, attributes) in enumerate(steps):
        inputs = [name]
        if parameter is not None:
            constants.append(onnx.numpy_helper.from_array(parameter, f"c{index}"))
            inputs.append(f"c{index}")
        name = "y0" if index == len(steps) - 1 else f"t{index}"
        nodes.append(onnx.helper.make_node(op_type, inputs, [name], name=f"n{index}", **attributes))
    dtype = onnx.helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = onnx.helper.make_graph(
        nodes, "chain", [onnx.helper.make_tensor_value_info("x", dtype, axes)],
        [onnx.ValueInfoProto(name="y0")], constants,
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def ranks(lowered: Lowered) -> set[int]:
    return {output.rank for op in lowered.program.functions["main"].operations for output in op.outputs}


# No two axes are neighbours before and after: more than two transposes of 5 runs can undo.
WIDE = (0, 7, 1, 8, 2, 9, 3, 10, 4, 11, 5, 12, 6, 13)

CHAINS: dict[str, tuple[tuple[int, ...], list[Step]]] = {
    "pixel shuffle": ((2, 8, 3, 5), [to(-1, 2, 2, 2, 3, 5), permute(0, 1, 4, 2, 5, 3), to(0, 2, 6, 10)]),
    "windows": ((2, 8, 6, 3), [to(0, 4, 2, 3, 2, 3), permute(0, 1, 3, 2, 4, 5), to(-1, 4, 3)]),
    "and back": ((24, 4, 3), [to(-1, 4, 3, 2, 2, 3), permute(0, 1, 3, 2, 4, 5), to(-1, 8, 6, 3)]),
    "rank 7": ((4, 6, 10), [to(1, 2, 2, 2, 3, 1, 10), permute(6, 0, 5, 4, 3, 2, 1), to(10, -1)]),
    "6 axes apart": ((16, 45), [to(2, 4, 2, 3, 3, 5), permute(5, 4, 3, 2, 1, 0), to(-1)]),
    "7 axes apart": (
        (16, 45),
        [to(2, 2, 2, 2, 3, 3, 5), permute(3, 0, 5, 2, 6, 4, 1), permute(6, 2, 4, 1, 5, 0, 3), to(20, -1)],
    ),
    "twice": (
        (2, 3, 4, 30),
        [to(2, 3, 4, 2, 3, 5), permute(0, 3, 1, 2, 5, 4), permute(5, 0, 1, 2, 3, 4), to(0, 0, -1)],
    ),
    "unfolded": (
        (2, 3, 4, 6),
        [
            take(2, np.array([[0, 1], [1, 2], [2, 3]])),
            take(4, np.array([[0, -2], [1, 3]])),
            permute(0, 1, 2, 4, 3, 5),
            to(2, 12, -1),
        ],
    ),
    "cast": (
        (2, 8, 3, 5),
        [
            to(-1, 2, 2, 2, 3, 5),
            ("Cast", None, {"to": onnx.TensorProto.INT32}),
            permute(0, 1, 4, 2, 5, 3),
            ("Cast", None, {"to": onnx.TensorProto.FLOAT}),
            to(0, 2, 6, 10),
        ],
    ),
    "nothing moves": ((2, 3, 4), [to(2, 1, 3, 1, 4, 1), permute(1, 0, 2, 4, 5, 3), to(6, 4)]),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
def test_chains(name: str, dtype: type, tmp_path: Path) -> None:
    shape, steps = CHAINS[name]
    x = (np.arange(np.prod(shape)).reshape(shape) % 7 - 1).astype(dtype)
    wanted = by_onnxruntime(chain(steps, x, shape), {"x": x})
    lowered = lower_ops(chain(steps, x, shape), wanted)
    assert max(ranks(lowered)) <= 5
    write_package(lowered, tmp_path / "p.mlpackage", ios=18, arithmetic="float32")
    interpreter = Interpreter(read_package(tmp_path / "p.mlpackage"))
    got = from_package(lowered.signature, interpreter.run(to_package(lowered.signature, {"x": x})))
    np.testing.assert_array_equal(got["y0"], wanted[0])


def test_rounding_between_a_reshape_and_a_transpose(tmp_path: Path) -> None:
    scale = np.array(0.5, np.float32)
    rounding: list[Step] = [
        ("QuantizeLinear", scale, {"output_dtype": onnx.TensorProto.INT8}),
        ("DequantizeLinear", scale, {}),
    ]
    shuffled = [to(-1, 2, 2, 2, 3, 5), *rounding, permute(0, 1, 4, 2, 5, 3), *rounding, to(0, 2, 6, 10)]
    x = np.random.default_rng(0).normal(size=(2, 8, 3, 5)).astype(np.float32)
    wanted = by_onnxruntime(chain(shuffled, x, x.shape), {"x": x})
    lowered = lower_ops(chain(shuffled, x, x.shape), wanted)
    assert max(ranks(lowered)) <= 5
    write_package(lowered, tmp_path / "p.mlpackage", ios=18, arithmetic="float32")
    interpreter = Interpreter(read_package(tmp_path / "p.mlpackage"))
    got = from_package(lowered.signature, interpreter.run(to_package(lowered.signature, {"x": x})))
    np.testing.assert_array_equal(got["y0"], wanted[0])


def test_rounding_by_channel_above_rank_5_is_refused() -> None:
    steps = [to(2, 2, 2, 2, 2, 2), ("QuantizeLinear", np.ones(2, np.float32), {"output_dtype": 3}), to(64)]
    with pytest.raises(RefusedNodeError, match="rank 6"):
        lower_ops(chain(steps, np.zeros(64, np.float32), [64]), [np.zeros(64, np.int8)])


def test_windows_of_images_of_any_size(tmp_path: Path) -> None:
    steps = [to(0, -1, 2, 3, 2, 5), permute(0, 1, 3, 2, 4, 5), to(-1, 4, 5)]
    example = np.zeros((2, 8, 6, 5), np.float32)
    axes = ["n", "h", 6, 5]
    model = chain(steps, example, axes)
    lowered = lower_ops(
        chain(steps, example, axes), by_onnxruntime(model, {"x": example}), dimensions=DIMENSIONS
    )
    options = CoreMLOptions(dimensions=DIMENSIONS)
    write_package(lowered, tmp_path / "p.mlpackage", ios=18, arithmetic="float32", options=options)
    interpreter = Interpreter(read_package(tmp_path / "p.mlpackage"))
    for batch, height in ((1, 8), (3, 12), (4, 32)):
        x = np.arange(batch * height * 30, dtype=np.float32).reshape(batch, height, 6, 5)
        got = from_package(lowered.signature, interpreter.run(to_package(lowered.signature, {"x": x})))
        np.testing.assert_array_equal(got["y0"], by_onnxruntime(model, {"x": x})[0])


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([to(2, 2, 2, 2, 2, 2)], "rank 6"),
        ([to(2, 2, 2, 2, 2, 2), permute(5, 4, 3, 2, 1, 0)], "rank 6"),
        ([to(*[2] * 14), permute(*WIDE), to(-1)], "moves 14 axes apart"),
        ([to(2, 2, 2, 2, 2, 2), ("Squeeze", None, {})], "rank 6"),
        ([to(4, 4, 4), take(0, np.zeros((2, 2, 2, 2), np.int64))], "rank 6"),
    ],
)
def test_what_rank_5_cannot_express_is_refused(steps: list[Step], reason: str) -> None:
    x = np.zeros(16384 if "14" in reason else 64, np.float32)
    with pytest.raises(RefusedNodeError, match=reason):
        lower_ops(chain(steps, x, x.shape), [x])
