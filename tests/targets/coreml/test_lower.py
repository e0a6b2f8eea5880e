"""Whole graphs: branches that are known, and ports that Core ML cannot have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeq.compiler.model import Model, Source
from edgeq.errors import InternalError, TargetError
from edgeq.targets.coreml.frontend.lower import lower
from edgeq.targets.coreml.frontend.node import OnnxNode, RefusedNodeError
from edgeq.targets.coreml.frontend.table import HANDLERS
from edgeq.targets.coreml.toolkit import builder
from edgeq.targets.dimensions import Dimension
from tests.support.coreml_cases import interpret
from tests.support.coreml_ops import Op, by_onnxruntime, lower_ops, model_of

SIZES = {"n": Dimension(2, 2)}


def info(name: str, shape: list[int | str] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def branches(name: str, then_node: onnx.NodeProto, else_node: onnx.NodeProto) -> dict[str, onnx.GraphProto]:
    weight = numpy_helper.from_array(np.array([2, 3, 4], np.float32), f"{name}_w")
    return {
        kind: helper.make_graph([node], f"{name}_{kind}", [], [info(node.output[0])], [weight])
        for kind, node in (("then_branch", then_node), ("else_branch", else_node))
    }


def model_with_branches(rows: int) -> onnx.ModelProto:
    """Whether x has ``rows`` rows decides between a product with weights of the branch and a sum.

    The product is followed by a second If within the first.
    """
    inner = helper.make_node(
        "If", ["same"], ["then_y"],
        **branches("inner", helper.make_node("Mul", ["product", "inner_w"], ["deep"]),
                   helper.make_node("Neg", ["product"], ["deeper"])),
    )  # fmt: skip
    outer = branches(
        "outer",
        helper.make_node("Mul", ["x", "outer_w"], ["product"]),
        helper.make_node("Add", ["x", "outer_w"], ["else_y"]),
    )
    outer["then_branch"].node.append(inner)
    outer["then_branch"].output[0].name = "then_y"
    nodes = [
        helper.make_node("Shape", ["x"], ["rows"], start=0, end=1),
        helper.make_node("Equal", ["rows", "wanted"], ["same"]),
        helper.make_node("If", ["same"], ["chosen"], **outer),
        helper.make_node("Relu", ["chosen"], ["y"]),
    ]
    wanted = numpy_helper.from_array(np.array([rows]), "wanted")
    graph = helper.make_graph(nodes, "g", [info("x", ["n", 3])], [info("y", ["n", 3])], [wanted])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize("rows", [2, 5])
def test_conditions_on_dimensions_that_are_fixed(rows: int, tmp_path: Path) -> None:
    model = model_with_branches(rows)
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    got = interpret(model, {"x": x}, tmp_path, dimensions=SIZES)
    np.testing.assert_allclose(got["y"], by_onnxruntime(model, {"x": x})[0], rtol=1e-6)


def test_conditions_of_the_run_are_refused(tmp_path: Path) -> None:
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(RefusedNodeError, match="condition is only known at run time") as refused:
        interpret(model_with_branches(2), {"x": x}, tmp_path, dimensions={"n": Dimension(1, 4)})
    assert "Fix the dynamic dimensions" in str(refused.value)


def test_inputs_of_rank_6_are_refused() -> None:
    x = np.zeros((1, 2, 1, 2, 1, 2), np.float32)
    with pytest.raises(
        TargetError, match="the input 'x' has rank 6, and Core ML tensors have at most 5"
    ) as e:
        lower_ops(model_of([Op("Relu", ["x"])], {"x": x}, {}), [x])
    assert "Reshape it in the model" in str(e.value)


def test_outputs_of_rank_6_are_refused() -> None:
    x, shape = np.zeros(8, np.float32), np.array([1, 2, 1, 2, 1, 2])
    model = model_of([Op("Reshape", ["x", "s"])], {"x": x}, {"s": shape})
    model.graph.output[0].CopyFrom(info("y0", shape.tolist()))
    typed = onnx.shape_inference.infer_shapes(model)
    assert len(typed.graph.output[0].type.tensor_type.shape.dim) == 6
    with pytest.raises(TargetError, match="the output 'y0' has rank 6"):
        lower(Model(ir.from_proto(typed), Source("onnx", "test", "0" * 64)), ios=18)


def _misspelled(node: OnnxNode) -> Any:
    return node.inputt(0)  # type: ignore[attr-defined]


def _wrong_for_numpy(node: OnnxNode) -> Any:
    return np.transpose(node.attribute("missing"), "ab")  # type: ignore[arg-type]


def _wrong_for_coremltools(node: OnnxNode) -> Any:
    return builder().transpose(x=node.input(0), perm=[0, 7])


@pytest.mark.parametrize(
    ("handler", "error", "text"),
    [
        (_misspelled, InternalError, "lowering Relu 'n0' fails with AttributeError: .*inputt"),
        (_wrong_for_numpy, InternalError, "lowering Relu 'n0' fails with TypeError"),
        (_wrong_for_coremltools, RefusedNodeError, "Relu 'n0': coremltools does not take it"),
    ],
)
def test_defects_of_a_handler_are_no_refusals(
    handler: Callable[[OnnxNode], Any],
    error: type[Exception],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = np.zeros((2, 3), np.float32)
    table = MappingProxyType({**HANDLERS, "Relu": handler})
    monkeypatch.setattr("edgeq.targets.coreml.frontend.table.HANDLERS", table)
    with pytest.raises(error, match=text):
        lower_ops(model_of([Op("Relu", ["x"])], {"x": x}, {}), [x])
