"""The verifier against graphs whose optimized form is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model
from edgeq.compiler.plan import NodePlan, Plan
from edgeq.compiler.recipe import Recipe
from edgeq.targets.base import BuildJob, NodeResult
from edgeq.targets.onnxruntime.verify import inspect, verify
from tests.support.weight_models import TARGET, build, node, random


def save(model: Model, folder: Path) -> Path:
    TARGET.build(BuildJob(model, Plan(), Recipe(scheme="fp32")), folder)
    return folder / "model.onnx"


def plan_of(**precisions: tuple[str, str]) -> Plan:
    """name → (op type, planned precision)."""
    nodes = {n: NodePlan(n, op, p, "asked", True) for n, (op, p) in precisions.items()}  # type: ignore[arg-type]
    return Plan(nodes=nodes)


def by_name(results: list[NodeResult]) -> dict[str, NodeResult]:
    return {result.name: result for result in results}


def qdq(name: str, scale: str = "s", zero: str = "z") -> list[onnx.NodeProto]:
    return [
        node("QuantizeLinear", [name, scale, zero], [f"{name}_q"], name=f"{name}_Quantize"),
        node("DequantizeLinear", [f"{name}_q", scale, zero], [f"{name}_d"], name=f"{name}_Dequantize"),
    ]


def quantized_block() -> Model:
    """conv → relu → add (residual) → pool → pad (no INT8 kernel), all between Q and DQ."""
    scales: dict[str, Array] = {
        "s": np.array(0.02, np.float32),
        "z": np.array(0, np.uint8),
        "k_q": np.random.default_rng(0).integers(-99, 99, (8, 8, 3, 3), dtype=np.int8),
        "k_s": np.full(8, 0.01, np.float32),
        "k_z": np.zeros(8, np.int8),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    }
    nodes = [
        *qdq("x"),
        node("DequantizeLinear", ["k_q", "k_s", "k_z"], ["k"], name="k_Dequantize", axis=0),
        node("Conv", ["x_d", "k"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"], name="relu"),
        *qdq("r"),
        node("Add", ["r_d", "x_d"], ["a"], name="add"),
        *qdq("a"),
        node("MaxPool", ["a_d"], ["m"], name="pool", kernel_shape=[2, 2]),
        *qdq("m"),
        node("Pad", ["m_d", "pads"], ["p"], name="pad"),
        *qdq("p"),
        node("Identity", ["p_d"], ["y"], name="identity"),
    ]
    return build(nodes, {"x": ("f", [1, 8, 8, 8])}, scales)


def test_quantized_kernels_absorbed_activations_and_missed_nodes(tmp_path: Path) -> None:
    plan = plan_of(
        conv=("Conv", "int8"),
        relu=("Relu", "int8"),
        add=("Add", "int8"),
        pool=("MaxPool", "int8"),
        pad=("Pad", "int8"),
    )
    found = by_name(verify(save(quantized_block(), tmp_path), plan))
    assert (found["conv"].actual, found["conv"].kernel) == ("int8", "QLinearConv")
    assert found["relu"].actual == "removed"
    assert (found["add"].actual, found["add"].kernel) == ("int8", "QLinearAdd")
    assert found["pool"].actual == "int8"
    assert found["pad"].actual == "fp32"
    assert {name for name, result in found.items() if result.missed} == {"pad"}
    assert "found no int8 kernel" in found["pad"].reason


def test_names_that_look_like_anything(tmp_path: Path) -> None:
    """Digits, tags, prefixes of one another, empty: the trace does not depend on them."""
    nodes = [
        node("Conv", ["x", "k"], ["1"], name="1", pads=[1, 1, 1, 1]),
        node("Relu", ["1"], ["11"], name="11"),
        node("Conv", ["11", "k"], ["~0~"], name="~0~", pads=[1, 1, 1, 1]),
        node("Add", ["~0~", "11"], ["1_token_1"], name="1_token_1"),
        node("MaxPool", ["1_token_1"], ["y"], name="", kernel_shape=[2, 2]),
    ]
    model = build(nodes, {"x": ("f", [1, 16, 8, 8])}, {"k": random(16, 16, 3, 3)})
    plan = plan_of(**{"1": ("Conv", "fp32"), "11": ("Relu", "fp32"), "~0~": ("Conv", "fp32")})
    found = by_name(verify(save(model, tmp_path), plan))
    assert [found[name].actual for name in ("1", "~0~")] == ["fp32", "fp32"]
    assert found["1"].kernel == found["~0~"].kernel == "Conv"
    assert found["1"].reason.endswith("fused with Relu '11'")
    pools = [r for r in inspect(tmp_path / "model.onnx") if r.op_type == "MaxPool"]
    assert [r.actual for r in pools] == ["fp32"]


def test_folded_and_removed_nodes(tmp_path: Path) -> None:
    nodes = [
        node("Add", ["a", "b"], ["c"], name="constant"),
        node("Identity", ["x"], ["i"], name="identity"),
        node("Mul", ["i", "c"], ["y"], name="mul"),
    ]
    model = build(nodes, {"x": ("f", ["N", 4])}, {"a": random(4), "b": random(4)})
    plan = plan_of(constant=("Add", "fp32"), identity=("Identity", "fp32"), mul=("Mul", "fp32"))
    plan.nodes["gone"] = NodePlan("gone", "Relu", "fp32", "", False)
    found = by_name(verify(save(model, tmp_path), plan))
    assert [found[n].actual for n in ("constant", "identity", "gone")] == ["removed"] * 3
    assert "folded into a constant" in found["constant"].reason
    assert found["mul"].actual == "fp32"


def test_a_dequantized_weight_in_a_float_kernel_is_missed(tmp_path: Path) -> None:
    """A convolution that was planned in INT8 but whose input never got quantized."""
    constants: dict[str, Array] = {
        "k_q": np.ones((8, 8, 3, 3), np.int8),
        "k_s": np.full(8, 0.01, np.float32),
        "k_z": np.zeros(8, np.int8),
    }
    nodes = [
        node("DequantizeLinear", ["k_q", "k_s", "k_z"], ["k"], name="k_Dequantize", axis=0),
        node("Conv", ["x", "k"], ["y"], name="conv"),
    ]
    model = build(nodes, {"x": ("f", [1, 8, 8, 8])}, constants)
    result = verify(save(model, tmp_path), plan_of(conv=("Conv", "int8")))[0]
    assert result.missed
    assert result.actual == "fp32"


def test_inspecting_needs_no_plan(tmp_path: Path) -> None:
    results = by_name(inspect(save(quantized_block(), tmp_path)))
    assert set(results) == {"conv", "relu", "add", "pool", "pad", "identity"}
    assert results["conv"].actual == "int8"
    assert not any(result.missed for result in results.values())
    assert {result.planned for result in results.values()} == {""}


def test_the_model_itself_is_not_changed(tmp_path: Path) -> None:
    path = save(quantized_block(), tmp_path)
    before = path.read_bytes()
    verify(path, plan_of(conv=("Conv", "int8")))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert isinstance(ir.load(path), ir.Model)


def test_types_survive_kernels_whose_first_input_is_a_scale(tmp_path: Path) -> None:
    """The types of QLinearConcat's output are not saved; what reads it must not look like float."""
    constants: dict[str, Array] = {
        "s": np.array(0.02, np.float32),
        "z": np.array(0, np.uint8),
        "k_q": np.random.default_rng(0).integers(-99, 99, (8, 8, 1, 1), dtype=np.int8),
        "k_s": np.full(8, 0.01, np.float32),
        "k_z": np.zeros(8, np.int8),
    }
    nodes = [
        *qdq("x"),
        node("DequantizeLinear", ["k_q", "k_s", "k_z"], ["k"], name="k_Dequantize", axis=0),
        node("Conv", ["x_d", "k"], ["c"], name="conv"),
        *qdq("c"),
        node("Concat", ["c_d", "x_d"], ["j"], name="join", axis=1),
        *qdq("j"),
        node("MaxPool", ["j_d"], ["m"], name="pool", kernel_shape=[2, 2]),
        *qdq("m"),
        node("Identity", ["m_d"], ["y"], name="out"),
    ]
    model = build(nodes, {"x": ("f", [1, 8, 8, 8])}, constants)
    planned = plan_of(conv=("Conv", "int8"), join=("Concat", "int8"), pool=("MaxPool", "int8"))
    found = by_name(verify(save(model, tmp_path), planned))
    assert {name: result.actual for name, result in found.items()} == dict.fromkeys(planned.nodes, "int8")


def test_deep_graphs_with_many_paths_are_read_in_one_pass(tmp_path: Path) -> None:
    """1,200 nodes in a row, each reading the one before twice."""
    nodes = [node("Add", [f"v{i}", f"v{i}"], [f"v{i + 1}"], name=f"add{i}") for i in range(1200)]
    nodes.append(node("Tanh", ["v1200"], ["y"], name="last"))
    path = save(build(nodes, {"v0": ("f", [1, 4])}, {}), tmp_path)
    results = by_name(inspect(path))
    assert results["last"].actual == "fp32"
    assert len(results) == 1201
