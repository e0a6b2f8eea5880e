"""GPTQ on the matrix products of ONNX graphs: what the runtimes compute, what is shared, what falls back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

import edgeq
from edgeq.calibration.types import Array
from edgeq.compiler.model import Model
from edgeq.compiler.quantize.blocks import dequantize, quantize_blocks
from edgeq.compiler.quantize.dispatch import check_recipe
from edgeq.compiler.quantize.int4_weight import quantize_int4_weight
from edgeq.compiler.quantize.learned_blocks import Data, find_products, learn_blocks
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.quantize.rewriter import Rewriter
from edgeq.compiler.recipe import Override, Recipe
from edgeq.compiler.weights.gptq import quantize_gptq
from edgeq.compiler.weights.grid import GridRules
from edgeq.compiler.weights.output_error import output_energy
from edgeq.compiler.weights.spec import Floats, WeightSpec
from edgeq.compiler.weights.statistics import InputStatistics
from edgeq.errors import DataError, EdgeqError, TargetError
from edgeq.progress import SilentProgress
from edgeq.targets.openvino.capabilities import CAPABILITIES as OPENVINO
from tests.support.calibration_models import ArraysInMemory
from tests.support.weight_models import CAPS, build, constants, node, random, run


def recipe(**options: object) -> Recipe:
    return Recipe.model_validate({"scheme": "int4-weight", "weight_method": "gptq", **options})


def correlated(rows: int, k: int, *, seed: int = 0) -> Floats:
    """Inputs as layers have them: an eighth of the directions holds most of the energy."""
    mix = random(k // 8, k, seed=99)
    return np.ascontiguousarray(random(rows, k // 8, seed=seed) @ mix + 0.3 * random(rows, k, seed=seed + 1))


def gptq(model: Model, data: dict[str, Array], **options: object) -> Quantized:
    return quantize_int4_weight(model, CAPS, recipe(**options), ArraysInMemory(data), threads=1)


def rtn(model: Model, **options: object) -> Quantized:
    return quantize_int4_weight(model, CAPS, recipe(weight_method="rtn", **options))


def noise(exact: Array, found: Array) -> float:
    return float(((exact - found) ** 2).sum() / (exact**2).sum())


def expected(
    rows: Floats,
    block: int,
    *inputs: Floats,
    symmetric: bool = True,
    negative_scales: bool = True,
    **options: Any,
) -> Floats:
    """What GPTQ by itself makes of ``rows`` [N, K] for all ``inputs``."""
    rules = GridRules(negative_scales=negative_scales, scale_dtype="float32")
    spec = WeightSpec(4, block, symmetric)
    options = {"damping": 0.01, "act_order": True, **options}
    return quantize_gptq(rows, spec, sums(*inputs), rules, **options).weight.dequantize()


def sums(*inputs: Floats) -> InputStatistics:
    """Of ``inputs``, added in batches of the collecting run's size: float32 sums depend on their order."""
    statistics = InputStatistics.empty(inputs[0].shape[1], hessian=True)
    for part in inputs:
        for start in range(0, len(part), 32):
            statistics.update(part[start : start + 32])
    return statistics


def reasons(quantized: Quantized) -> dict[str, str]:
    return {name: node.reason for name, node in quantized.plan.nodes.items()}


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("block", [16, 32, 128])
@pytest.mark.parametrize(("op", "k"), [("MatMul", 256), ("Gemm", 256), ("GemmT", 300)])
def test_products_compute_with_what_gptq_found(
    tmp_path: Path, op: str, k: int, block: int, symmetric: bool
) -> None:
    rows, x = random(48, k), correlated(512, k)
    turned = op == "GemmT"
    weights = rows if turned else np.ascontiguousarray(rows.T)
    attributes = {} if op == "MatMul" else {"transB": int(turned), "alpha": 0.5}
    product = node(op.removesuffix("T"), ["x", "w"], ["y"], name="p", **attributes)
    model = build([product], {"x": ("f", ["M", k])}, {"w": weights})
    options = {"block_size": block, "symmetric_weights": symmetric}
    quantized = gptq(model, {"x": x}, calibration_samples=512, **options)
    scaled = rows if op == "MatMul" else rows * np.float32(0.5)
    values = expected(scaled, block, x, symmetric=symmetric)

    judged = correlated(64, k, seed=7)
    found = run(quantized.model, tmp_path / "gptq", {"x": judged})["y"]
    exact = run(model, tmp_path / "float", {"x": judged})["y"]
    nearest = run(rtn(model, **options).model, tmp_path / "rtn", {"x": judged})["y"]
    np.testing.assert_allclose(found, judged @ values.T, rtol=1e-3, atol=1e-3)
    assert noise(exact, found) < 0.6 * noise(exact, nearest)
    reason = quantized.plan.nodes["p"].reason
    assert "(MatMulNBits), gptq with damping 0.01 (output error 0." in reason
    assert quantized.plan.notes == []


def trained(k: int = 128, hidden: int = 256, outputs: int = 16) -> tuple[dict[str, Floats], Floats]:
    """Weights of a network of two layers that was trained on correlated inputs, and inputs."""
    x, rate = correlated(1024, k) / 4, np.float32(2e-4)
    wanted = np.tanh(x[:, :outputs] * x[:, outputs : 2 * outputs])
    up, down = random(hidden, k, seed=1, scale=k**-0.5), random(outputs, hidden, seed=2, scale=hidden**-0.5)
    bias, offset = np.zeros(hidden, np.float32), np.zeros(outputs, np.float32)
    for step in range(150):
        part = slice(step % 4 * 256, (step % 4 + 1) * 256)
        inner = np.maximum(x[part] @ up.T + bias, 0)
        error = inner @ down.T + offset - wanted[part]
        back = (error @ down) * (inner > 0)
        down -= rate * (error.T @ inner)
        offset -= rate * error.sum(axis=0)
        up -= rate * (back.T @ x[part])
        bias -= rate * back.sum(axis=0)
    assert (error**2).mean() < 0.25 * wanted.var()
    return {"w1": up, "b1": bias, "w2": down, "b2": offset}, x


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``model.onnx``, ``calibration.npz`` and ``evaluation.npz`` of the trained network."""
    folder = tmp_path_factory.mktemp("network")
    weights, x = trained()
    nodes = [
        node("Gemm", ["x", "w1", "b1"], ["h"], name="up", transB=1),
        node("Relu", ["h"], ["r"], name="relu"),
        node("Gemm", ["r", "w2", "b2"], ["y"], name="down", transB=1),
    ]
    onnx.save(ir.to_proto(build(nodes, {"x": ("f", ["N", 128])}, weights).ir), folder / "model.onnx")
    np.savez(folder / "calibration.npz", x=x[:768])
    np.savez(folder / "evaluation.npz", x=x[768:])
    return folder


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_a_trained_network_loses_less(network: Path, tmp_path: Path, target: str) -> None:
    x = np.load(network / "evaluation.npz")["x"]
    results = {}
    for method in ("rtn", "gptq"):
        compiled = edgeq.compile(
            network / "model.onnx",
            target=target,
            recipe=recipe(weight_method=method),
            calibration=network / "calibration.npz" if method == "gptq" else None,
            output=tmp_path / method,
            bench=None,
        )
        with edgeq.targets.registry.get_target(target).runner(compiled.folder, threads=1) as runner:
            results[method] = runner.run({"x": x})["y"]
        nodes = {n.name: n for n in compiled.manifest.nodes}
        assert nodes["up"].planned == "int4"
        assert ("gptq with damping 0.01" in nodes["up"].reason) == (method == "gptq")
        assert compiled.manifest.recipe.weight_method == method
    weights = constants(network / "model.onnx")
    exact = np.maximum(x @ weights["w1"].T + weights["b1"], 0) @ weights["w2"].T + weights["b2"]
    assert noise(exact, results["gptq"]) < 0.6 * noise(exact, results["rtn"])


def test_the_same_bytes_twice(network: Path, tmp_path: Path) -> None:
    hashes = []
    for name in ("one", "two"):
        compiled = edgeq.compile(
            network / "model.onnx",
            target="onnxruntime",
            recipe=recipe(),
            calibration=network / "calibration.npz",
            output=tmp_path / name,
            bench=None,
        )
        hashes.append((compiled.manifest.files, compiled.manifest.nodes))
    assert hashes[0] == hashes[1]


def shared_model() -> Model:
    """Two products of ``x``, and a weight that is read behind both."""
    nodes = [
        node("MatMul", ["x", "a"], ["p"], name="one"),
        node("MatMul", ["x", "b"], ["q"], name="two"),
        node("Relu", ["p"], ["r"], name="relu"),
        node("MatMul", ["r", "c"], ["s"], name="three"),
        node("MatMul", ["q", "c"], ["t"], name="four"),
        node("Add", ["s", "t"], ["y"], name="sum"),
    ]
    weights = {name: random(128, 128, seed=i, scale=0.1) for i, name in enumerate("abc")}
    return build(nodes, {"x": ("f", ["M", 128])}, weights)


def test_sums_of_shared_weights_add_up_and_inputs_are_shared(tmp_path: Path) -> None:
    model, x = shared_model(), correlated(300, 128)
    state = Rewriter(model.clone().ir, CAPS, recipe())
    products = find_products(list(state.model.graph), state)
    assert [product.readers for product in products] == [("x",), ("x",), ("q", "r")]

    quantized = gptq(model, {"x": x})
    stored = constants_of(quantized)
    a, b, c = (tensor.const_value.numpy() for tensor in model.ir.graph.initializers.values())
    np.testing.assert_array_equal(stored["a"], expected(a.T.copy(), 32, x))
    np.testing.assert_array_equal(stored["b"], expected(b.T.copy(), 32, x))
    inputs = (np.maximum(x @ a, 0), x @ b)
    rows, both = c.T.copy(), sums(*inputs)
    lost = {
        name: output_energy(rows - values, both)
        for name, values in {
            "shared": stored["c"],
            "both": expected(rows, 32, *inputs),
            "first": expected(rows, 32, inputs[0]),
            "second": expected(rows, 32, inputs[1]),
        }.items()
    }
    assert lost["shared"] == pytest.approx(lost["both"], rel=0.02)
    assert lost["shared"] < 0.8 * min(lost["first"], lost["second"])


def constants_of(quantized: Quantized) -> dict[str, Floats]:
    """The values of all blocks, by the weight's name: read from the graph as MatMulNBits is specified."""
    found = {}
    for product in quantized.model.ir.graph:
        if product.op_type != "MatMulNBits":
            continue
        codes, scales = (value.const_value.numpy() for value in product.inputs[1:3])  # type: ignore[union-attr]
        pairs = np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:2], -1).astype(np.float32)
        n, k = product.attributes["N"].as_int(), product.attributes["K"].as_int()
        name = (product.inputs[1].name or "").removesuffix("_int4")  # type: ignore[union-attr]
        found[name] = ((pairs - 8) * scales[..., None]).reshape(n, -1)[:, :k]
    return found


def test_a_bound_on_memory_changes_nothing() -> None:
    model, x = shared_model(), correlated(300, 128)
    found = []
    for bound in (1, 1 << 30):
        copy, source = model.clone(), ArraysInMemory({"x": x})
        state = Rewriter(copy.ir, CAPS, recipe())
        learn_blocks(copy, list(copy.ir.graph), state, Data(source, 1, SilentProgress(), bound))
        found.append(({key[2].name: value for key, value in state.learned.items()}, len(source.asked)))  # type: ignore[index]
    (small, passes), (large, fewer) = found
    assert passes == 2 * fewer
    for name, learned in large.items():
        np.testing.assert_array_equal(small[name].blocks.codes, learned.blocks.codes)  # type: ignore[union-attr]


def test_samples_damping_and_order_are_read() -> None:
    model, x = shared_model(), correlated(300, 128)
    a = model.ir.graph.initializers["a"].const_value.numpy().T.copy()  # type: ignore[union-attr]
    few = constants_of(gptq(model, {"x": x}, calibration_samples=200))["a"]
    np.testing.assert_array_equal(few, expected(a, 32, x[:200]))
    in_order = constants_of(gptq(model, {"x": x}, act_order=False, damping=0.1))["a"]
    np.testing.assert_array_equal(in_order, expected(a, 32, x, act_order=False, damping=0.1))


def test_overrides_are_left_alone() -> None:
    overrides = (Override(match="one", precision="int8"), Override(match="two", precision="fp32"))
    quantized = gptq(shared_model(), {"x": correlated(300, 128)}, overrides=overrides)
    assert {"a", "b"}.isdisjoint(constants_of(quantized))
    assert "gptq" in reasons(quantized)["three"]
    assert not any("gptq" in reasons(quantized)[name] for name in ("one", "two"))


def test_a_model_without_int4_products_is_refused() -> None:
    everything = (Override(match="op:MatMul", precision="fp32"),)
    with pytest.raises(TargetError) as error:
        gptq(shared_model(), {"x": correlated(8, 128)}, overrides=everything)
    assert str(error.value).startswith(
        "The method 'gptq' rounds matrix products with int4 weights, and the model has none."
    )


def test_openvino_gets_whole_blocks_from_the_axis_that_is_summed() -> None:
    rows, x = random(64, 128), correlated(300, 128)
    for turned in (0, 1):
        weights = rows if turned else np.ascontiguousarray(rows.T)
        product = node("Gemm", ["x", "w"], ["y"], name="p", transB=turned, alpha=2.0)
        model = build([product], {"x": ("f", ["M", 128])}, {"w": weights})
        found = quantize_int4_weight(model, OPENVINO, recipe(), ArraysInMemory({"x": x}), threads=1).model
        values = {name: tensor.const_value for name, tensor in found.ir.graph.initializers.items()}
        codes, scales = (values[f"w_{part}"].numpy().astype(np.float32) for part in ("int4", "scale"))  # type: ignore[union-attr]
        stored = codes * np.repeat(scales, 32, axis=1 if turned else 0)
        wanted = expected(rows, 32, x, negative_scales=False)
        np.testing.assert_array_equal(stored if turned else stored.T, wanted)


def test_what_no_data_reaches_is_rounded_to_nearest() -> None:
    weights = {"w": random(64, 128), "v": random(64, 64), "none": np.array([0]), "axes": np.array([0])}
    nodes = [
        node("MatMul", ["x", "w"], ["y"], name="seen"),
        node("Slice", ["x", "none", "none", "axes"], ["empty"], name="cut"),
        node("MatMul", ["empty", "v"], ["z"], name="unseen"),
    ]
    model = build(nodes, {"x": ("f", ["M", 64])}, weights, outputs=("y", "z"))
    quantized = gptq(model, {"x": correlated(100, 64)})
    exact = dequantize(quantize_blocks(weights["v"].T.copy(), 4, 32, symmetric=True), 64)
    np.testing.assert_array_equal(constants_of(quantized)["v"], exact)
    assert quantized.plan.notes == ["unseen: rounded to nearest: the calibration data never reaches it."]
    assert reasons(quantized)["unseen"].endswith("rounded to nearest: the calibration data never reaches it")
    assert "gptq" in reasons(quantized)["seen"]


def test_subgraphs_are_rounded_to_nearest() -> None:
    inner = helper.make_graph(
        [node("MatMul", ["x", "v"], ["inner"], name="inside")],
        "then",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    other = helper.make_graph(
        [node("MatMul", ["x", "w"], ["outer"], name="beside")],
        "else",
        [],
        [helper.make_tensor_value_info("outer", TensorProto.FLOAT, None)],
    )
    nodes = [
        node("MatMul", ["x", "w"], ["m"], name="before"),
        node("ReduceMax", ["x"], ["top"], name="top", keepdims=0),
        node("Greater", ["top", "low"], ["c"], name="greater"),
        node("If", ["c"], ["i"], name="if", then_branch=inner, else_branch=other),
        node("Add", ["m", "i"], ["y"], name="sum"),
    ]
    weights = {"w": random(64, 128), "v": random(64, 128), "low": np.array(-1e9, np.float32)}
    model = build(nodes, {"x": ("f", ["M", 64])}, weights)
    quantized = gptq(model, {"x": correlated(40, 64)})
    assert quantized.plan.notes == [
        "inside: rounded to nearest: it stands in a subgraph, whose tensors cannot be observed."
    ]
    assert "gptq" in reasons(quantized)["beside"]


def test_inputs_that_are_not_finite() -> None:
    nodes = [node("Log", ["x"], ["l"], name="log"), node("MatMul", ["l", "w"], ["y"], name="p")]
    model = build(nodes, {"x": ("f", ["M", 64])}, {"w": random(64, 128)})
    quantized = gptq(model, {"x": np.zeros((40, 64), np.float32)})
    assert quantized.plan.notes == ["p: rounded to nearest: its inputs are not finite."]


def test_a_singular_hessian_raises_the_damping_visibly() -> None:
    model = build(
        [node("MatMul", ["x", "w"], ["y"], name="p")], {"x": ("f", ["M", 64])}, {"w": random(64, 128)}
    )
    quantized = gptq(model, {"x": np.outer(random(40), random(64, seed=3))}, damping=1e-9)
    (note,) = quantized.plan.notes
    assert note.startswith("p: its Hessian needed a damping of ")
    assert note.endswith(" in place of 1e-09.")
    assert "gptq with damping 1e-09" not in reasons(quantized)["p"]


def test_tables_that_are_gathered_too_are_rounded_to_nearest() -> None:
    table = random(96, 64)
    nodes = [
        node("Gather", ["w", "i"], ["h"], name="emb"),
        node("MatMul", ["h", "v"], ["g"], name="mid"),
        node("Transpose", ["w"], ["wt"], name="t", perm=[1, 0]),
        node("MatMul", ["g", "wt"], ["y"], name="head"),
    ]
    model = build(nodes, {"i": ("i", ["B"])}, {"w": table, "v": random(64, 64)})
    quantized = gptq(model, {"i": np.arange(96)})
    assert quantized.plan.notes == ["head: rounded to nearest: it is an embedding table too."]
    assert "gptq" in reasons(quantized)["mid"]


def test_no_data_is_one_sentence(network: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        edgeq.compile(
            network / "model.onnx", target="onnxruntime", recipe=recipe(), output=tmp_path, bench=None
        )
    assert str(error.value).startswith("The method 'gptq' needs calibration data and none was given.")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"weight_method": "awq"},
            "Target 'openvino' does not round the weights of a graph by the method 'awq'. It takes: rtn, "
            "gptq. The others are of targets that store the checkpoints of language models, such as "
            "onnxruntime-genai.",
        ),
        (
            {"scheme": "int8-weight"},
            "The option weight_method = gptq has no effect on target 'openvino' with scheme 'int8-weight': "
            "only int4-weight reads it. Leave it out.",
        ),
        (
            {"block_size": -1},
            "Target 'openvino' has no weights with one scale per output channel in blocks. Give another "
            "block size, or leave it out.",
        ),
    ],
)
def test_what_graphs_do_not_take_is_one_sentence(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(EdgeqError) as error:
        check_recipe(recipe(**fields), OPENVINO)
    assert " ".join(str(error.value).split()) == said
