"""The float rest of a network in float16 or bfloat16: types, names, numbers, and real builds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model, save
from edgeq.compiler.plan import NodePlan, Plan
from edgeq.compiler.quantize.fp16_plan import plan_fp16
from edgeq.compiler.quantize.static import quantize_static
from edgeq.compiler.recipe import Override, Recipe
from edgeq.errors import TargetError
from edgeq.targets.onnxruntime.runner import OnnxRuntimeRunner
from edgeq.targets.tensorrt.backend.build import build_many
from edgeq.targets.tensorrt.backend.request import BuildReport
from edgeq.targets.tensorrt.capabilities import capabilities
from edgeq.targets.tensorrt.layers.parse import parse_table
from edgeq.targets.tensorrt.magnitudes import too_large
from edgeq.targets.tensorrt.options import HighPrecision, TensorRTOptions
from edgeq.targets.tensorrt.precision import cast_rest
from tests.support.static_models import Samples
from tests.support.tensorrt import needs_rtx, request
from tests.support.weight_models import build, node, random, sqnr

FLOAT, HALF, BRAIN = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16
NOTHING = Plan()
Feeds = dict[str, Array]


def run(model: Model, folder: Path, feeds: Feeds) -> dict[str, Array]:
    folder.mkdir(parents=True, exist_ok=True)
    save(model, folder / "model.onnx")
    with OnnxRuntimeRunner(folder / "model.onnx", threads=1, in_float=True) as runner:
        return runner.run(feeds)


def compared(model: Model, folder: Path, feeds: Feeds) -> tuple[Array, Array, Model]:
    """Output ``y`` of the model, and of the same model in float16."""
    half, _ = cast_rest(model, NOTHING, "fp16")
    return run(model, folder / "float", feeds)["y"], run(half, folder / "half", feeds)["y"], half


def float_types(model: Model) -> set[ir.DataType]:
    return {v.dtype for v in model.ir.graph.initializers.values() if v.dtype and v.dtype.is_floating_point()}


def names(nodes: Iterable[ir.Node]) -> set[str]:
    return {n.name or "" for n in nodes}


def by_name(model: Model) -> dict[str, ir.Node]:
    return {n.name or "": n for n in model.ir.graph.all_nodes()}


@pytest.mark.parametrize("moves", [(), ("Pad",), ("MaxPool", "Pad")])
@pytest.mark.parametrize(("precision", "dtype"), [("fp16", HALF), ("bf16", BRAIN)])
def test_a_shift_before_rounding_is_summed_in_float32(
    precision: HighPrecision, dtype: ir.DataType, moves: tuple[str, ...], tmp_path: Path
) -> None:
    """Numbers of float16 about 128 steps large are a sixteenth of a step apart: values would fall aside."""
    step = 1.34375
    found, notes = cast_rest(shifted(step, moves), NOTHING, precision)
    summed = [n for n in found.ir.graph if n.op_type in ("Add", "QuantizeLinear", *moves)]
    assert [n.inputs[0].dtype for n in summed] == [FLOAT] * (2 + len(moves))
    assert {n.outputs[0].dtype for n in found.ir.graph if n.op_type in ("Relu", "DequantizeLinear")} == {
        dtype
    }
    assert not notes
    if precision == "bf16":  # ONNX Runtime has no such kernels on CPUs
        return
    x = np.float32(step / 2 + np.arange(-40, 40) / 2048).reshape(1, 80, 1, 1)
    codes = run(found, tmp_path, {"x": x})["y"][0, :, -1, -1] / np.float32(step)
    np.testing.assert_array_equal(codes[x.ravel() != step / 2], [-128] * 40 + [-127] * 39)


def shifted(step: float, moves: tuple[str, ...]) -> Model:
    """What is added to a Relu is rounded, behind ``moves``."""
    numbers = {"by": np.float32(-128 * step), "step": np.float32(step), "zero": np.int8(0)}
    pads = np.array([0, 0, 1, 1, 0, 0, 0, 0])
    nodes = [node("Relu", ["x"], ["r"]), node("Add", ["r", "by"], ["a"])]
    for op_type in moves:
        inputs, attributes = (["pads"], {}) if op_type == "Pad" else ([], {"kernel_shape": [1, 1]})
        nodes.append(node(op_type, [nodes[-1].output[0], *inputs], [f"from_{op_type}"], **attributes))
    nodes.append(node("QuantizeLinear", [nodes[-1].output[0], "step", "zero"], ["q"]))
    nodes.append(node("DequantizeLinear", ["q", "step", "zero"], ["d"]))
    nodes.append(node("Neg", ["d"], ["m"]))
    nodes.append(node("Neg", ["m"], ["y"]))
    constants = {name: np.asarray(number) for name, number in {**numbers, "pads": pads}.items()}
    return build(nodes, {"x": ("f", [1, 80, 1, 1])}, constants)


def perceptron() -> Model:
    nodes = [
        node("Conv", ["x", "k", "kb"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"], name="relu"),
        node("Flatten", ["r"], ["f"], name="flatten"),
        node("Gemm", ["f", "w", "b"], ["g"], name="fc"),
        node("Softmax", ["g"], ["y"], name="softmax"),
    ]
    weights = {"k": random(8, 3, 3, 3), "kb": random(8), "w": random(512, 16, scale=0.05), "b": random(16)}
    return build(nodes, {"x": ("f", [1, 3, 8, 8])}, weights)


def quantized_perceptron() -> tuple[Model, Plan]:
    model = perceptron()
    data = Samples(x=random(8, 3, 8, 8, seed=2))
    caps = replace(capabilities(TensorRTOptions(sm=(86,), backend="tensorrt-rtx")), scale_dtype="float16")
    made = quantize_static(model, caps, Recipe(scheme="int8-static"), data, threads=1)
    return made.model, made.plan


def hidden_query() -> Model:
    """Scores [1, 4, 4] whose first query may look at nothing; the mask comes from integers."""
    nodes = [
        node("Cast", ["m"], ["mf"], name="ones", to=TensorProto.FLOAT),
        node("Sub", ["one", "mf"], ["inv"], name="inverted"),
        node("Mul", ["inv", "lowest"], ["hide"], name="mask"),
        node("Add", ["x", "hide"], ["s"], name="scores"),
        node("Softmax", ["s"], ["y"], name="softmax"),
    ]
    lowest = np.array(np.finfo(np.float32).min)
    return build(
        nodes,
        {"x": ("f", [1, 4, 4]), "m": ("i", [1, 4, 4])},
        {"one": np.ones((), np.float32), "lowest": lowest},
    )


def rotary() -> Model:
    nodes = [
        node("Cast", ["p"], ["pf"], name="positions", to=TensorProto.FLOAT),
        node("Mul", ["pf", "frequencies"], ["angles"], name="angles"),
        node("Cos", ["angles"], ["cos"], name="cos"),
        node("Mul", ["x", "cos"], ["y"], name="rotated"),
    ]
    frequencies = (10000.0 ** -np.linspace(0, 1, 16)).astype(np.float32)
    return build(nodes, {"x": ("f", [64, 16]), "p": ("i", [64, 1])}, {"frequencies": frequencies})


def normalized_by_hand() -> Model:
    nodes = [
        node("Pow", ["x", "two"], ["sq"], name="squares"),
        node("ReduceMean", ["sq", "last"], ["mean"], name="mean"),
        node("Add", ["mean", "eps"], ["safe"], name="epsilon"),
        node("Sqrt", ["safe"], ["root"], name="root"),
        node("Div", ["x", "root"], ["n"], name="division"),
        node("MatMul", ["n", "w"], ["y"], name="product"),
    ]
    numbers = {
        "two": np.array(2, np.float32),
        "eps": np.array(1e-9, np.float32),
        "last": np.array([-1]),
        "w": random(32, 32),
    }
    return build(nodes, {"x": ("f", [2, 8, 32])}, numbers)


def branches() -> Model:
    """An If whose branches read a float16 value from outside, and a constant of the branch."""

    def branch(name: str, op_type: str) -> object:
        made = [helper.make_node(op_type, ["h", "w2"], [name], name=f"{name}_product")]
        return helper.make_graph(
            made, name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 16])]
        )

    nodes = [
        node("MatMul", ["x", "w"], ["h"], name="before"),
        node(
            "If", ["c"], ["i"], name="choice", then_branch=branch("t", "Mul"), else_branch=branch("e", "Add")
        ),
        node("Relu", ["i"], ["y"], name="after"),
    ]
    weights = {"w": random(16, 16), "w2": random(16)}
    return build(nodes, {"x": ("f", [2, 16]), "c": ("b", [])}, weights)


def filled() -> Model:
    """A tensor that an attribute types."""
    nodes = [
        node(
            "ConstantOfShape",
            ["shape"],
            ["ones"],
            name="filled",
            value=helper.make_tensor("v", 1, [1], [1.5]),
        ),
        node("Add", ["x", "ones"], ["a"], name="sum"),
        node("MatMul", ["a", "w"], ["y"], name="product"),
    ]
    return build(nodes, {"x": ("f", [4, 16])}, {"w": random(16, 16), "shape": np.array([4, 16])})


def overflowing() -> Model:
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="product"),
        node("Mul", ["a", "large"], ["b"], name="large"),
        node("Mul", ["b", "small"], ["y"], name="small"),
    ]
    small, large = np.full(16, 1e-3, np.float32), np.full(16, 1e5, np.float32)
    numbers = {"w": random(16, 16), "large": large, "small": small}
    return build(nodes, {"x": ("f", [4, 16])}, numbers)


def without_bfloat16() -> Model:
    nodes = [
        node("ConvTranspose", ["x", "k"], ["c"], name="transposed"),
        node("HardSwish", ["c"], ["h"], name="hard"),
        node("Conv", ["h", "l"], ["y"], name="conv"),
    ]
    return build(nodes, {"x": ("f", [1, 8, 8, 8])}, {"k": random(8, 8, 3, 3), "l": random(8, 8, 1, 1)})


def test_float32_leaves_the_model_as_it_is() -> None:
    model = perceptron()
    assert cast_rest(model, NOTHING, "fp32") == (model, ())


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", HALF), ("bf16", BRAIN)])
def test_everything_takes_the_type_and_the_border_stays_float32(precision: str, dtype: ir.DataType) -> None:
    model = perceptron()
    cast, notes = cast_rest(model, NOTHING, precision)  # type: ignore[arg-type]
    assert float_types(cast) == {dtype}
    assert [value.dtype for value in (*cast.ir.graph.inputs, *cast.ir.graph.outputs)] == [
        ir.DataType.FLOAT
    ] * 2
    assert [value.name for value in cast.ir.graph.outputs] == ["y"]
    casts = [n for n in cast.ir.graph if n.op_type == "Cast"]
    assert len(casts) == 2
    assert names(cast.ir.graph) - names(casts) == names(model.ir.graph)
    assert notes == ()
    assert float_types(model) == {ir.DataType.FLOAT}, "the model that was given is untouched"


def test_float16_is_close_to_float32(tmp_path: Path) -> None:
    exact, half, _ = compared(perceptron(), tmp_path, {"x": random(1, 3, 8, 8, seed=3)})
    assert half.dtype == np.float32
    assert sqnr(exact, half) > 50


def test_scales_take_the_type_and_the_model_computes_the_same(tmp_path: Path) -> None:
    model, plan = quantized_perceptron()
    half, _ = cast_rest(model, plan, "fp16")
    scales = {
        n.name: n.inputs[1].dtype for n in half.ir.graph if n.op_type == "DequantizeLinear" and n.inputs[1]
    }
    assert len(scales) == 4
    assert set(scales.values()) == {HALF}
    feeds = {"x": random(1, 3, 8, 8, seed=3)}
    assert sqnr(run(model, tmp_path / "float", feeds)["y"], run(half, tmp_path / "half", feeds)["y"]) > 45


def test_an_input_that_is_rounded_first_needs_no_cast() -> None:
    half, _ = cast_rest(*quantized_perceptron(), "fp16")
    (reader,) = half.ir.graph.inputs[0].consumers()
    assert reader.op_type == "QuantizeLinear"
    assert reader.inputs[1] is not None
    assert reader.inputs[1].dtype == ir.DataType.FLOAT


def test_a_query_that_sees_nothing_stays_finite(tmp_path: Path) -> None:
    mask = np.tril(np.ones((1, 4, 4), np.int64), -1)
    exact, half, cast = compared(hidden_query(), tmp_path, {"x": random(1, 4, 4), "m": mask})
    assert np.isfinite(half).all()
    np.testing.assert_allclose(half[:, 1:], exact[:, 1:], atol=2e-3)
    assert half[0, 0].sum() == pytest.approx(1, abs=1e-2)
    assert float_types(cast) == {HALF}


def test_positions_are_exact_beyond_2048(tmp_path: Path) -> None:
    positions = np.arange(4001, 4065)[:, None]
    exact, half, _ = compared(rotary(), tmp_path, {"x": np.ones((64, 16), np.float32), "p": positions})
    np.testing.assert_allclose(half, exact, atol=2e-3)


def test_sums_of_squares_do_not_overflow(tmp_path: Path) -> None:
    x = random(2, 8, 32, scale=400)
    exact, half, cast = compared(normalized_by_hand(), tmp_path, {"x": x})
    assert sqnr(exact, half) > 45
    nodes = by_name(cast)
    assert nodes["product"].outputs[0].dtype == HALF
    # ONNX Runtime computes them in float32 whatever their type is, so that the numbers do not tell.
    wide = {nodes[name].outputs[0].dtype for name in ("squares", "mean", "epsilon", "root")}
    assert wide == {ir.DataType.FLOAT}


def test_an_epsilon_that_float16_has_not_is_kept(tmp_path: Path) -> None:
    _, half, _ = compared(normalized_by_hand(), tmp_path, {"x": np.zeros((2, 8, 32), np.float32)})
    assert np.array_equal(half, np.zeros_like(half)), "0 / 0 without it"


def test_a_number_that_float16_would_make_0_keeps_its_node_in_float32() -> None:
    """Among many weights a vanishing one is no loss."""
    nodes = [
        node("Relu", ["x"], ["r"], name="relu"),
        node("Add", ["r", "epsilon"], ["a"], name="safe"),
        node("Mul", ["a", "weights"], ["y"], name="scaled"),
    ]
    weights = np.array([1e-9, 1, 2, 3], np.float32)
    model = build(nodes, {"x": ("f", [4, 4])}, {"epsilon": np.array(1e-9, np.float32), "weights": weights})
    cast, notes = cast_rest(model, NOTHING, "fp16")
    found = by_name(cast)
    types = {name: found[name].outputs[0].dtype for name in ("relu", "safe", "scaled")}
    assert types == {"relu": HALF, "safe": ir.DataType.FLOAT, "scaled": HALF}
    assert notes == ("1 node stays in float32 beside fp16: 1 Add.",)


def test_constants_beyond_the_range_keep_their_node_in_float32(tmp_path: Path) -> None:
    exact, half, cast = compared(overflowing(), tmp_path, {"x": random(4, 16)})
    assert sqnr(exact, half) > 50
    assert by_name(cast)["large"].outputs[0].dtype == ir.DataType.FLOAT
    _, notes = cast_rest(overflowing(), NOTHING, "fp16")
    assert notes == ("1 node stays in float32 beside fp16: 1 Mul.",)


def test_samples_show_what_overflows() -> None:
    cast, notes = cast_rest(overflowing(), NOTHING, "fp16", [{"x": random(4, 16)}])
    nodes = by_name(cast)
    assert {n: nodes[n].outputs[0].dtype for n in ("product", "large", "small")} == {
        "product": HALF,
        "large": ir.DataType.FLOAT,
        "small": ir.DataType.FLOAT,
    }
    assert notes == ("2 nodes stay in float32 beside fp16: 2 Mul.",)
    assert cast_rest(perceptron(), NOTHING, "fp16", [{"x": random(1, 3, 8, 8)}])[1] == ()


@pytest.mark.parametrize(
    ("largest", "found"),
    [(30_000, set()), (40_000, {"y"}), (-40_000, set()), (-70_000, {"y"}), (np.inf, set())],
)
def test_twice_what_samples_show_must_fit(largest: float, found: set[str]) -> None:
    """Above 0; below there are masks, which are as large by intention."""
    model = build([node("Identity", ["x"], ["y"], name="idle")], {"x": ("f", [1, 2])}, {})
    assert too_large(model, [{"x": np.array([[1, largest]], np.float32)}]) == found


def test_a_mask_is_no_overflow() -> None:
    mask = np.tril(np.ones((1, 4, 4), np.int64), -1)
    cast, notes = cast_rest(hidden_query(), NOTHING, "fp16", [{"x": random(1, 4, 4), "m": mask}])
    assert by_name(cast)["scores"].outputs[0].dtype == HALF
    assert notes == ()


@pytest.mark.parametrize("chosen", [True, False])
def test_branches_read_and_write_float32_at_their_borders(tmp_path: Path, chosen: bool) -> None:
    exact, half, cast = compared(branches(), tmp_path, {"x": random(2, 16), "c": np.array(chosen)})
    assert sqnr(exact, half) > 50
    inside = [n for n in cast.ir.graph.all_nodes() if n.name in ("t_product", "e_product")]
    assert {n.outputs[0].dtype for n in inside} == {HALF}


def test_an_attribute_that_says_the_type_follows(tmp_path: Path) -> None:
    exact, half, cast = compared(filled(), tmp_path, {"x": random(4, 16)})
    assert sqnr(exact, half) > 50
    assert by_name(cast)["filled"].outputs[0].dtype == HALF


def test_what_an_override_keeps_in_float32_stays_there() -> None:
    recipe = Recipe(scheme="fp16", overrides=(Override(match="fc", precision="fp32"),))
    made = plan_fp16(perceptron(), recipe)
    cast, notes = cast_rest(made.model, made.plan, "fp16")
    assert {v.dtype for v in by_name(cast)["fc"].inputs if v} == {ir.DataType.FLOAT}
    assert {v.dtype for v in by_name(cast)["conv"].inputs if v} == {HALF}
    assert notes == ("1 node stays in float32 beside fp16: 1 Gemm.",)


def test_a_plan_that_asks_for_nothing_pins_nothing() -> None:
    plan = Plan(nodes={"fc": NodePlan("fc", "Gemm", "fp32", "no kernel", asked=True)})
    cast, _ = cast_rest(perceptron(), plan, "fp16")
    assert float_types(cast) == {HALF}


BUILT: dict[str, Callable[[], Model]] = {
    f.__name__: f
    for f in (
        perceptron,
        without_bfloat16,
        hidden_query,
        rotary,
        normalized_by_hand,
        branches,
        filled,
        overflowing,
    )
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], BuildReport | TargetError]:
    folder = tmp_path_factory.mktemp("rest")
    keys, requests = [], []
    for precision in ("fp16", "bf16"):
        models = {name: (make(), NOTHING) for name, make in BUILT.items()}
        models["quantized"] = quantized_perceptron()
        for name, (model, plan) in models.items():
            path = folder / f"{name}_{precision}.onnx"
            save(cast_rest(model, plan, precision)[0], path)
            keys.append((name, precision))
            requests.append(request(path))
    return dict(zip(keys, build_many(requests), strict=True))


@needs_rtx
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("name", [*BUILT, "quantized"])
def test_tensorrt_builds_it(
    reports: dict[tuple[str, str], BuildReport | TargetError], name: str, precision: str
) -> None:
    report = reports[name, precision]
    assert isinstance(report, BuildReport), report


@needs_rtx
def test_the_layers_have_the_types(reports: dict[tuple[str, str], BuildReport | TargetError]) -> None:
    report = reports["quantized", "fp16"]
    assert isinstance(report, BuildReport)
    (table,) = [parse_table(text, sm) for sm, text in report.tables.items()]
    conv = next(layer for layer in table.layers if "conv" in layer.nodes and layer.kind == "correlation")
    assert [tensor.dtype for tensor in conv.inputs] == ["Int8"]
    brain = reports["perceptron", "bf16"]
    assert isinstance(brain, BuildReport)
    assert any("BFloat16" in text for text in brain.tables.values())


def test_recurrent_layers_run_in_float16(tmp_path: Path) -> None:
    # ONNX Runtime's own way to load this model ends the process.
    size = 4
    nodes = [
        node("LSTM", ["x", "w", "r", "b"], ["all"], name="lstm", hidden_size=size),
        node("Squeeze", ["all", "direction"], ["rows"], name="rows"),
        node("Transpose", ["rows"], ["turned"], name="turned", perm=[1, 0, 2]),
        node("MatMul", ["turned", "out"], ["y"], name="out"),
    ]
    weights: dict[str, Array] = {
        "w": random(1, 4 * size, size, seed=1),
        "r": random(1, 4 * size, size, seed=2),
        "b": random(1, 8 * size, seed=3),
        "direction": np.array([1]),
        "out": random(size, size, seed=4),
    }
    model = build(nodes, {"x": ("f", [8, 1, size])}, weights)
    exact, half, cast = compared(model, tmp_path, {"x": random(8, 1, size)})
    assert float_types(cast) == {HALF}
    assert sqnr(exact, half) > 40
