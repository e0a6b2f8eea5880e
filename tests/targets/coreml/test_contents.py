"""What a package holds, and in which precision every planned node is in it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model
from edgeq.compiler.plan import NodePlan, Plan
from edgeq.compiler.quantize.static import quantize_static
from edgeq.compiler.recipe import Recipe
from edgeq.errors import ModelError
from edgeq.targets.base import NodeResult
from edgeq.targets.coreml.capabilities import CAPABILITIES
from edgeq.targets.coreml.interpreter.program import read_package
from edgeq.targets.coreml.verification.contents import package_contents
from edgeq.targets.coreml.verification.precision import node_results
from tests.support.coreml_packages import package
from tests.support.static_models import Samples, graph, normal


def convnet() -> Model:
    return graph(
        [
            ("Conv", ["x", "w0", "b0"], ["c0"], {"pads": [1, 1, 1, 1]}),
            ("Relu", ["c0"], ["r0"], {}),
            ("Conv", ["r0", "w1"], ["c1"], {"pads": [1, 1, 1, 1]}),
            ("GlobalAveragePool", ["c1"], ["g"], {}),
            ("Flatten", ["g"], ["f"], {}),
            ("Gemm", ["f", "w2"], ["y"], {}),
        ],
        {"x": [1, 3, 8, 8]},
        ["y"],
        {"w0": normal(8, 3, 3, 3), "b0": normal(8), "w1": normal(8, 8, 3, 3, seed=1), "w2": normal(8, 10)},
    )


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model, Plan]:
    """The network in INT8 static, as package."""
    data = Samples(x=normal(8, 3, 8, 8, seed=4))
    found = quantize_static(convnet(), CAPABILITIES, Recipe(scheme="int8-static"), data, threads=1)
    path = package(found.model, tmp_path_factory.mktemp("static") / "m.mlpackage")
    return path, found.model, found.plan


def results(path: Path, model: Model, plan: Plan) -> dict[str, NodeResult]:
    return {r.op_type + r.name[-3:]: r for r in node_results(read_package(path), model.ir, plan)}


def test_the_figures_are_those_of_the_spec(static: tuple[Path, Model, Plan]) -> None:
    found = package_contents(static[0])
    assert (found.ios, found.specification_version) == (17, 8)
    assert found.operations["conv"] == 2
    assert found.weights["int8"].tensors == 3
    numbers = 8 * 27 + 8 * 72 + 80
    # scales in float16 and a zero point
    assert numbers < found.weights["int8"].bytes < numbers + 2 * 26 + 3 * 16
    assert found.roundings["quantize"] == found.roundings["dequantize"]
    assert found.inputs[0].shape == (1, 3, 8, 8)
    assert not found.small_scales
    assert "const" not in found.operations


def test_the_figures_are_json_and_rows(static: tuple[Path, Model, Plan]) -> None:
    found = package_contents(static[0])
    assert json.loads(json.dumps(found.to_json()))["weights"]["int8"]["tensors"] == 3
    rows = dict(found.rows())
    assert rows["Input x"] == "float32 [1, 3, 8, 8]"
    assert rows["Weights in int8"].startswith("3 tensors")


def test_flexible_sizes_are_shown(tmp_path: Path) -> None:
    model = graph([("Relu", ["x"], ["y"], {})], {"x": ["N", 4]}, ["y"], {})
    ranged = package(model, tmp_path / "a.mlpackage", {"dimension.N": "1..8"})
    listed = package(model, tmp_path / "b.mlpackage", {"dimension.N": "1,2"})
    assert dict(package_contents(ranged).rows())["Input x"] == "float32 [1..8, 4]"
    assert dict(package_contents(listed).rows())["Input x"] == "float32 [1, 4] or [2, 4]"


@pytest.mark.parametrize(("scale", "small"), [(5e-5, True), (7e-5, False)])
def test_subnormal_scales_are_listed(scale: float, small: bool, tmp_path: Path) -> None:
    model = graph(
        [
            ("QuantizeLinear", ["x", "s", "z"], ["q"], {}),
            ("DequantizeLinear", ["q", "s", "z"], ["d"], {}),
            ("Relu", ["d"], ["y"], {}),
        ],
        {"x": [1, 4]},
        ["y"],
        {"s": np.array(scale, np.float32), "z": np.array(0, np.int8)},
    )
    found = package_contents(package(model, tmp_path / "m.mlpackage")).small_scales
    assert bool(found) == small
    assert all(item.scale == pytest.approx(scale, rel=0.01) for item in found)
    exact = package(model, tmp_path / "f.mlpackage", arithmetic="float32")
    assert not package_contents(exact).small_scales


def test_static_int8_is_int8_in_the_package(static: tuple[Path, Model, Plan]) -> None:
    path, model, plan = static
    for result in results(path, model, plan).values():
        if result.planned == "int8":
            assert result.actual == "int8", result
        else:
            assert result.actual in ("fp16", "removed"), result
        assert not result.missed
    assert sum(r.planned == "int8" for r in results(path, model, plan).values()) >= 3


def test_planned_int8_in_a_float_package_is_missed(static: tuple[Path, Model, Plan], tmp_path: Path) -> None:
    """The plan of the quantized model with the package of the float one."""
    plan = static[2]
    float_model = convnet()
    path = package(float_model, tmp_path / "m.mlpackage")
    found = node_results(read_package(path), float_model.ir, plan)
    assert {r.op_type for r in found if r.missed} >= {"Conv", "Gemm"}
    assert all(r.actual == "fp16" and r.reason for r in found if r.missed)


def test_rounded_weights_with_float_inputs_are_missed_in_static_int8(
    static: tuple[Path, Model, Plan], tmp_path: Path
) -> None:
    """The quantized model asks for rounded inputs; a package of stored weights alone is not that."""
    stored = weight_only(np.int8)
    path = package(stored, tmp_path / "m.mlpackage")
    rounded = graph(
        [
            ("QuantizeLinear", ["x", "s1", "z1"], ["xq"], {}),
            ("DequantizeLinear", ["xq", "s1", "z1"], ["xd"], {}),
            ("DequantizeLinear", ["q", "s"], ["w"], {"axis": 0}),
            ("Gemm", ["xd", "w"], ["y"], {"transB": 1}),
        ],
        {"x": [1, 32]},
        ["y"],
        {**constants(np.int8), "s1": np.array(0.1, np.float32), "z1": np.array(0, np.int8)},
    )
    (found,) = node_results(read_package(path), rounded.ir, gemm_plan("int8"))
    assert (found.actual, found.missed) == ("fp16", True)
    assert "int8 weights" in found.kernel


def constants(dtype: type) -> dict[str, Array]:
    return {
        "q": np.random.default_rng(0).integers(-7, 7, (16, 32)).astype(dtype),
        "s": np.full(16, 0.1, np.float32),
    }


def weight_only(dtype: type) -> Model:
    return graph(
        [("DequantizeLinear", ["q", "s"], ["w"], {"axis": 0}), ("Gemm", ["x", "w"], ["y"], {"transB": 1})],
        {"x": [1, 32]},
        ["y"],
        constants(dtype),
    )


def gemm_plan(precision: str) -> Plan:
    return Plan(nodes={"Gemm_y": NodePlan("Gemm_y", "Gemm", precision, "planned", asked=True)})  # type: ignore[arg-type]


def test_weights_alone_are_named_as_such(tmp_path: Path) -> None:
    model = weight_only(np.int8)
    path = package(model, tmp_path / "m.mlpackage")
    (found,) = node_results(read_package(path), model.ir, gemm_plan("int8"))
    assert (found.actual, found.missed) == ("int8-weight", False)


def test_float_nodes_are_what_the_arithmetic_is(tmp_path: Path) -> None:
    model = convnet()
    plan = Plan(
        nodes={n.name or "": NodePlan(n.name or "", n.op_type, "fp32", "", False) for n in model.ir.graph}
    )
    for arithmetic, actual in (("float16", "fp16"), ("float32", "fp32")):
        path = package(model, tmp_path / f"{arithmetic}.mlpackage", arithmetic=arithmetic)
        assert {r.actual for r in node_results(read_package(path), model.ir, plan)} <= {actual, "removed"}


def test_a_product_fused_with_its_bias_keeps_its_precision(tmp_path: Path) -> None:
    model = graph(
        [("MatMul", ["x", "w"], ["m"], {}), ("Add", ["m", "b"], ["y"], {})],
        {"x": [2, 16]},
        ["y"],
        {"w": normal(16, 16), "b": normal(16)},
    )
    plan = Plan(nodes={"MatMul_m": NodePlan("MatMul_m", "MatMul", "fp16", "", asked=True)})
    path = package(model, tmp_path / "m.mlpackage")
    (found,) = node_results(read_package(path), model.ir, plan)
    assert (found.actual, found.kernel) in {("fp16", "linear"), ("fp16", "linear of float16 weights")}


def test_nodes_that_are_gone_are_removed(tmp_path: Path) -> None:
    model = graph([("Relu", ["x"], ["y"], {})], {"x": [4]}, ["y"], {})
    plan = Plan(nodes={"gone": NodePlan("gone", "Conv", "fp16", "planned", asked=True)})
    (found,) = node_results(read_package(package(model, tmp_path / "m.mlpackage")), model.ir, plan)
    assert (found.actual, found.reason) == ("removed", "planned; compiled away")


def test_a_damaged_package_is_no_contents(tmp_path: Path) -> None:
    path = package(convnet(), tmp_path / "m.mlpackage")
    (path / "Data/com.apple.CoreML/model.mlmodel").write_bytes(b"\xff\xff")
    with pytest.raises(ModelError):
        package_contents(path)


def test_names_that_become_the_same_identifier_are_kept_apart(tmp_path: Path) -> None:
    """``a.b`` is a product of stored integers, ``a/b`` one of floats."""
    model = graph(
        [
            ("DequantizeLinear", ["q", "s"], ["w"], {"axis": 0}),
            ("Gemm", ["x", "w"], ["a.b"], {"transB": 1}),
            ("Relu", ["a.b"], ["r"], {}),
            ("MatMul", ["r", "m"], ["a/b"], {}),
            ("Relu", ["a/b"], ["y"], {}),
        ],
        {"x": [1, 32]},
        ["y"],
        {**constants(np.int8), "m": normal(16, 16)},
    )
    names = {"Gemm_a.b": "Gemm", "MatMul_a/b": "MatMul"}
    plan = Plan(nodes={n: NodePlan(n, op, "int8", "", asked=True) for n, op in names.items()})
    path = package(model, tmp_path / "m.mlpackage")
    found = node_results(read_package(path), model.ir, plan)
    assert [(r.actual, r.missed) for r in found] == [("int8-weight", False), ("fp16", True)]


@pytest.mark.parametrize("op_type", ["Relu", "HardSwish", "Gelu", "LeakyRelu"])
def test_an_activation_belongs_to_the_int8_layer_before_it(op_type: str, tmp_path: Path) -> None:
    """HardSwish is several operations; rounded inputs before the layer, a rounding after the activation."""
    model = graph(
        [
            ("QuantizeLinear", ["x", "s1", "z1"], ["xq"], {}),
            ("DequantizeLinear", ["xq", "s1", "z1"], ["xd"], {}),
            ("DequantizeLinear", ["q", "s"], ["w"], {"axis": 0}),
            ("Gemm", ["xd", "w"], ["g"], {"transB": 1}),
            (op_type, ["g"], ["a"], {}),
            ("QuantizeLinear", ["a", "s1", "z1"], ["aq"], {}),
            ("DequantizeLinear", ["aq", "s1", "z1"], ["y"], {}),
        ],
        {"x": [1, 32]},
        ["y"],
        {**constants(np.int8), "s1": np.array(0.1, np.float32), "z1": np.array(0, np.int8)},
    )
    plan = gemm_plan("int8")
    plan.nodes = {
        "Gemm_g": NodePlan("Gemm_g", "Gemm", "int8", "", asked=True),
        f"{op_type}_a": NodePlan(f"{op_type}_a", op_type, "int8", "", asked=True),
    }
    found = node_results(read_package(package(model, tmp_path / "m.mlpackage")), model.ir, plan)
    assert [r.actual for r in found] == ["int8", "int8"]


def test_an_activation_of_a_float_layer_is_missed(tmp_path: Path) -> None:
    model = graph(
        [("Gemm", ["x", "w"], ["g"], {}), ("Relu", ["g"], ["y"], {})],
        {"x": [1, 32]},
        ["y"],
        {"w": normal(32, 16)},
    )
    plan = Plan(nodes={"Relu_y": NodePlan("Relu_y", "Relu", "int8", "", asked=True)})
    (found,) = node_results(read_package(package(model, tmp_path / "m.mlpackage")), model.ir, plan)
    assert (found.actual, found.missed) == ("fp16", True)
