"""Op by scheme: what OpenVINO's execution graph says of every rule of the capabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from edgeq.compiler.model import Model
from edgeq.targets.openvino.capabilities import CAPABILITIES
from tests.support.openvino import build, images
from tests.support.static_models import Node, Samples, graph, normal

pytest.importorskip("openvino")

CHANNELS = 16
SHAPE = (CHANNELS, 8, 8)


def between(nodes: list[Node], weights: dict[str, np.ndarray] | None = None) -> Model:
    """``a`` → ``nodes`` → ``b`` between two convolutions."""
    around: list[Node] = [
        ("Conv", ["x", "w1"], ["a"], {"pads": [1, 1, 1, 1]}),
        *nodes,
        ("Conv", ["b", "w2"], ["y"], {"pads": [1, 1, 1, 1]}),
    ]
    kernels = {
        name: normal(CHANNELS, CHANNELS, 3, 3, seed=i, scale=0.1) for i, name in enumerate(("w1", "w2"))
    }
    return graph(around, {"x": ["n", *SHAPE]}, ["y"], {**kernels, **(weights or {})})


def one(op_type: str, *more: str, **attributes: object) -> list[Node]:
    return [(op_type, ["a", *more], ["b"], attributes)]


# Op → the nodes between two convolutions, and constants.
ABSORBED: dict[str, tuple[list[Node], dict[str, np.ndarray]]] = {
    "Relu": (one("Relu"), {}),
    "LeakyRelu": (one("LeakyRelu", alpha=0.1), {}),
    "Sigmoid": (one("Sigmoid"), {}),
    "Tanh": (one("Tanh"), {}),
    "Elu": (one("Elu"), {}),
    "HardSwish": (one("HardSwish"), {}),
    "Gelu": (one("Gelu"), {}),
    "Mish": (one("Mish"), {}),
    "Clip": (one("Clip", "low", "high"), {"low": np.float32(-1), "high": np.float32(1)}),
    "PRelu": (
        one("PRelu", "slope"),
        {"slope": np.linspace(0.1, 0.9, CHANNELS, dtype=np.float32).reshape(-1, 1, 1)},
    ),
}
MOVED: dict[str, tuple[list[Node], dict[str, np.ndarray]]] = {
    "MaxPool": (one("MaxPool", kernel_shape=[2, 2]), {}),
    "GlobalMaxPool": (one("GlobalMaxPool"), {}),
    "Transpose": (one("Transpose", perm=[0, 1, 3, 2]), {}),
    "Reshape": (one("Reshape", "shape"), {"shape": np.array([0, 0, 4, 16])}),
    "Slice": (one("Slice", "from", "to"), {"from": np.array([0, 0, 1, 1]), "to": np.array([9, 99, 7, 7])}),
    "Resize": (
        one(
            "Resize",
            "",
            "scales",
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        ),
        {"scales": np.array([1, 1, 2, 2], np.float32)},
    ),
}
JOINED: dict[str, tuple[list[Node], dict[str, np.ndarray]]] = {
    "AveragePool": (one("AveragePool", kernel_shape=[2, 2]), {}),
    "GlobalAveragePool": (one("GlobalAveragePool"), {}),
}


@pytest.mark.parametrize("op_type", ABSORBED)
def test_activation_functions_are_computed_in_the_int8_convolution(op_type: str, tmp_path: Path) -> None:
    built = build(between(*ABSORBED[op_type]), "int8-static", tmp_path, images(*SHAPE))
    assert built.actual("Conv") == ["int8", "int8"]
    assert "u8 out" in built.nodes["Conv_a"].kernel, "rounded by the kernel"


@pytest.mark.parametrize("op_type", [*MOVED, *JOINED])
def test_moves_and_pools_run_on_int8_values(op_type: str, tmp_path: Path) -> None:
    built = build(between(*{**MOVED, **JOINED}[op_type]), "int8-static", tmp_path, images(*SHAPE))
    assert built.actual("Conv") == ["int8", "int8"]
    ran = {node.actual for node in built.nodes.values() if node.op_type not in ("Conv", "Constant")}
    assert ran <= {"int8", "removed", "other"}, ran
    assert "u8 out" in built.nodes["Conv_a"].kernel, "rounded before it"


def test_a_residual_addition_stays_in_one_byte(tmp_path: Path) -> None:
    nodes: list[Node] = [
        ("Relu", ["a"], ["r"], {}),
        ("Conv", ["r", "w3"], ["c"], {"pads": [1, 1, 1, 1]}),
        ("Add", ["c", "r"], ["s"], {}),
        ("Relu", ["s"], ["b"], {}),
    ]
    model = between(nodes, {"w3": normal(CHANNELS, CHANNELS, 3, 3, seed=5, scale=0.1)})
    built = build(model, "int8-static", tmp_path, images(*SHAPE))
    assert built.actual("Conv") == ["int8"] * 3
    assert built.nodes["Add_s"].planned == "int8"


LINEAR = {
    "MatMul": ("MatMul", {}, (16, 24)),
    "Gemm": ("Gemm", {"transB": 1}, (24, 16)),
}


@pytest.mark.parametrize("op_type", LINEAR)
@pytest.mark.parametrize(
    ("scheme", "actual"),
    [("int8-static", "int8"), ("int8-weight", "int8-weight"), ("int4-weight", "int4"), ("fp32", "fp32")],
)
def test_matrix_products(op_type: str, scheme: str, actual: str, tmp_path: Path) -> None:
    op, attributes, shape = LINEAR[op_type]
    k, n = 128, 64
    weights = normal(*((n, k) if shape[0] > shape[1] else (k, n)), scale=0.1)
    model = graph([(op, ["x", "w"], ["y"], attributes)], {"x": ["n", k]}, ["y"], {"w": weights})
    built = build(model, scheme, tmp_path, images(k))
    assert set(built.actual("MatMul") + built.actual("Gemm")) == {actual}
    assert not any(node.missed for node in built.nodes.values())


@pytest.mark.parametrize("scheme", ["int8-weight", "int4-weight"])
def test_convolutions_hold_int8_weights_and_compute_in_float(scheme: str, tmp_path: Path) -> None:
    built = build(between(one("Relu")), scheme, tmp_path, images(*SHAPE))
    assert built.actual("Conv") == ["int8-weight"] * 2


@pytest.mark.parametrize(("scheme", "actual"), [("int8-weight", "int8-weight"), ("int4-weight", "int4")])
def test_rows_of_tables_are_read_from_integers(scheme: str, actual: str, tmp_path: Path) -> None:
    table = normal(256, 64)
    types = {"ids": TensorProto.INT64}
    model = graph([("Gather", ["t", "ids"], ["y"], {})], {"ids": ["n", 8]}, ["y"], {"t": table}, types=types)
    ids = Samples(ids=np.arange(32, dtype=np.int64).reshape(4, 8))
    built = build(model, scheme, tmp_path, ids)
    assert built.actual("Gather")[0] in (actual, "int8")


@pytest.mark.parametrize("op_type", ["LSTM", "GRU"])
def test_recurrent_weights_are_stored_in_int8(op_type: str, tmp_path: Path) -> None:
    gates = {"LSTM": 4, "GRU": 3}[op_type]
    weights = {"w": normal(1, gates * 32, 16, scale=0.2), "r": normal(1, gates * 32, 32, scale=0.2)}
    model = graph([(op_type, ["x", "w", "r"], ["y"], {"hidden_size": 32})], {"x": [6, 1, 16]}, ["y"], weights)
    built = build(model, "int8-weight", tmp_path)
    assert built.actual(op_type) == ["int8-weight"]


def test_attention_between_activations_stays_in_float(tmp_path: Path) -> None:
    nodes: list[Node] = [
        ("MatMul", ["x", "w"], ["q"], {}),
        ("Transpose", ["q"], ["k"], {"perm": [0, 2, 1]}),
        ("MatMul", ["q", "k"], ["y"], {}),
    ]
    model = graph(nodes, {"x": ["n", 8, 32]}, ["y"], {"w": normal(32, 32, scale=0.2)})
    built = build(model, "int8-static", tmp_path, images(8, 32))
    assert (built.nodes["MatMul_q"].actual, built.nodes["MatMul_y"].actual) == ("int8", "fp32")


def test_fp16_halves_the_weights_and_computes_in_float32(tmp_path: Path) -> None:
    whole = build(between(one("Relu")), "fp32", tmp_path / "fp32", images(*SHAPE))
    half = build(between(one("Relu")), "fp16", tmp_path / "fp16", images(*SHAPE))
    sizes = [(built.folder / "model.bin").stat().st_size for built in (half, whole)]
    assert sizes[0] < 0.51 * sizes[1]
    assert half.actual("Conv") == ["fp16-weight"] * 2
    assert all(check.passed for check in half.result.checks)


def test_every_rule_that_computes_is_in_the_grid() -> None:
    tried = {*ABSORBED, *MOVED, *JOINED, "Conv", "Gemm", "MatMul", "Add", "Gather"}
    # Identity and its like are the same layer as those of the grid, or vanish.
    alike = {
        "Concat", "DepthToSpace", "Expand", "Flatten", "Identity", "ReduceMean", "Split", "Squeeze", "Swish",
        "Unsqueeze",
    }  # fmt: skip
    assert set(CAPABILITIES.int8_static) == tried | alike
