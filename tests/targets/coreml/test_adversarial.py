"""What random graphs and hostile models broke: same numbers as ONNX Runtime, or one clear refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeq.calibration.types import Array
from edgeq.errors import ConfigError, EdgeqError
from edgeq.targets.coreml.options import parse_options
from edgeq.targets.dimensions import Dimension
from tests.support.coreml_cases import interpret
from tests.support.coreml_ops import Op, by_onnxruntime, refusal, run_ops
from tests.support.coreml_sizes import SizedPackage


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def model_of(nodes: list[onnx.NodeProto], shape: list[int], outputs: dict[str, list[int]]) -> onnx.ModelProto:
    """Float input ``x``; ``outputs`` are names with their shapes."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in outputs.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


@pytest.mark.parametrize(
    ("size", "stride", "kernel"), [(4, 2, 2), (6, 2, 3), (6, 3, 2), (2, 2, 2), (5, 2, 2)]
)
def test_depthwise_convolutions_in_one_dimension_with_strides(
    size: int, stride: int, kernel: int, tmp_path: Path
) -> None:
    x, w = normal(2, 4, size), normal(8, 1, kernel, seed=1)
    op = Op("Conv", ["x", "w"], {"strides": [stride], "group": 4})
    run_ops([op], {"x": x}, tmp_path, constants={"w": w}).check()


@pytest.mark.parametrize("arithmetic", ["float32", "float16"])
def test_outputs_that_transposes_make_equal_keep_their_names(arithmetic: str, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Softmax", ["a"], ["s"], axis=0),
        helper.make_node("Transpose", ["a"], ["b"], perm=[0, 2, 1, 3]),
        helper.make_node("Abs", ["b"], ["c"]),
        helper.make_node("Transpose", ["b"], ["d"], perm=[0, 2, 1, 3]),
        helper.make_node("Transpose", ["b"], ["e"], perm=[0, 2, 1, 3]),
    ]
    model = model_of(nodes, [2, 4, 6, 5], {name: [2, 4, 6, 5] for name in "asde"})
    x = {"x": normal(2, 4, 6, 5)}
    found = interpret(model, x, tmp_path, arithmetic=arithmetic)  # type: ignore[arg-type]
    for name, wanted in zip("asde", by_onnxruntime(model, x), strict=True):
        np.testing.assert_allclose(found[name], wanted, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool"])
def test_dilated_pools_with_same_padding_are_not_computed_by_another_formula(
    op_type: str, tmp_path: Path
) -> None:
    attributes = {"kernel_shape": [3], "strides": [2], "dilations": [2], "auto_pad": "SAME_UPPER"}
    model = model_of([helper.make_node(op_type, ["x"], ["y"], **attributes)], [1, 2, 6], {"y": [1, 2, 3]})
    with pytest.raises(EdgeqError, match="auto_pad=SAME_UPPER with dilations"):
        interpret(model, {"x": normal(1, 2, 6)}, tmp_path)


def test_pads_that_crop_an_axis_to_nothing_are_refused() -> None:
    pads = np.array([0, -1, 0, 1], np.int64)
    assert "crops everything" in refusal(Op("Pad", ["x", "pads"]), {"x": normal(2, 1)}, {"pads": pads})


def test_mean_variance_normalization_of_a_lower_rank_is_refused(tmp_path: Path) -> None:
    op = Op("MeanVarianceNormalization", ["x"], {"axes": [0, 2, 3]})
    model = model_of(
        [helper.make_node(op.op_type, ["x"], ["y"], **op.attributes)], [2, 3, 4], {"y": [2, 3, 4]}
    )
    with pytest.raises(EdgeqError, match="its axis 3 does not exist in rank 3"):
        interpret(model, {"x": normal(2, 3, 4)}, tmp_path)


def test_parts_of_a_shape_with_known_sizes_as_floats(tmp_path: Path) -> None:
    ops = [
        Op("Shape", ["x"]),
        Op("Cast", ["y0"], {"to": TensorProto.FLOAT}),
        Op("Slice", ["y1", "first", "last"]),
    ]
    sized = SizedPackage(
        ops,
        {"x": normal(2, 4, 3)},
        {"x": ["n", 4, 3]},
        {"n": Dimension(1, 4)},
        tmp_path,
        constants={"first": np.array([1], np.int64), "last": np.array([3], np.int64)},
    )
    for count in (1, 2, 4):
        sized.check({"x": normal(count, 4, 3)})


def test_a_product_of_known_vectors_is_folded(tmp_path: Path) -> None:
    ops = [Op("Shape", ["x"]), Op("Cast", ["y0"], {"to": TensorProto.FLOAT}), Op("MatMul", ["y1", "y1"])]
    run_ops(ops, {"x": normal(2, 5)}, tmp_path).check()


@pytest.mark.parametrize("text", ["", " ; ", "x: color=RGB color=BGR", "x: scale=0", "x: scale=0/3"])
def test_image_inputs_that_say_nothing_or_too_much_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="image_input"):
        parse_options({"image_input": text})


def test_an_output_that_is_an_input_is_refused_and_its_identity_is_not(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Identity", ["x"], ["z"])]
    x = {"x": normal(2, 3)}
    with pytest.raises(EdgeqError, match="'x' is an input and an output"):
        interpret(model_of(nodes, [2, 3], {"y": [2, 3], "x": [2, 3]}), x, tmp_path)
    found = interpret(model_of(nodes, [2, 3], {"y": [2, 3], "z": [2, 3]}), x, tmp_path)
    np.testing.assert_array_equal(found["z"], x["x"])
