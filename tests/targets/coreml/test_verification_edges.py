"""Evidence and results at the edges: no inputs, odd names, integers only, nothing finite, damaged files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeq.calibration.types import Array
from edgeq.compiler.load import load
from edgeq.errors import ModelError
from edgeq.targets.coreml.package.folder import read_spec
from edgeq.targets.coreml.package.metadata import SIGNATURE
from edgeq.targets.coreml.runner import InterpreterRunner
from edgeq.targets.coreml.verification.explain import differences
from edgeq.targets.coreml.verification.prove import prove
from edgeq.targets.numbers import distance, exact_check, half_check
from edgeq.targets.reference import REFERENCE, SAMPLES, Reference, load_reference, load_samples, save_evidence
from edgeq.verify import verify
from tests.support.coreml_artefacts import PACKAGE, compile_net

WEIGHTS = (TensorProto.FLOAT, [4, 5])
INF, NAN = float("inf"), float("nan")


def found(wanted: Any, got: Any, *, floats_only: bool = False) -> Any:
    return distance([{"y": np.array(wanted)}], [{"y": np.array(got)}], floats_only)


@dataclass(frozen=True)
class Case:
    wanted: list[Any]
    got: list[Any]
    same: bool


@pytest.mark.parametrize(
    "case",
    [
        Case([1.0, NAN, INF], [1.0, NAN, INF], True),
        Case([1.0, NAN], [1.0, INF], False),
        Case([1.0, INF], [1.0, -INF], False),
        Case([1.0, INF], [1.0, 2.0], False),
        Case([1.0, 2.0], [1.0, NAN], False),
        Case([[1.0], [2.0]], [[1.0, 2.0]], False),
        Case([1, 2], [1, 3], False),
        Case([], [], True),
    ],
    ids=str,
)
def test_what_counts_as_the_same(case: Case) -> None:
    assert found(case.wanted, case.got).exact is case.same
    assert exact_check(found(case.wanted, case.got), ("", ""), "data").passed is case.same


@pytest.mark.parametrize(("equal", "passed"), [(20, True), (18, True), (17, False), (0, False)])
def test_integers_are_judged_where_there_is_nothing_else(equal: int, passed: bool) -> None:
    wanted = np.arange(20)
    got = np.where(wanted < equal, wanted, wanted + 1)
    check = half_check(found(wanted, got, floats_only=True), "data", rounded=False)
    assert check.passed is passed
    assert f"{equal * 5:.1f}% of the integers" in check.found


def test_integers_beside_floats_may_fall_otherwise_in_float16() -> None:
    wanted = {"y": np.ones(3), "label": np.array([1])}
    got = {"y": np.ones(3), "label": np.array([2])}
    assert half_check(distance([wanted], [got], floats_only=True), "data", rounded=False).passed


def net(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[str],
    output: tuple[int, list[int]] = (TensorProto.FLOAT, [2, 5]),
) -> Path:
    weights = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 4]) for name in inputs],
        [helper.make_tensor_value_info("y", *output)],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("name", ["a/b", "0/x.npy", "../up", "ä b"])
def test_names_of_inputs_are_any_text(name: str, tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", [name, "w"], ["y"], name="m")]
    model = load(str(net(tmp_path / "net.onnx", nodes, [name])))
    samples = [{name: np.full((2, 4), number, np.float32)} for number in (1.0, 2.0)]
    save_evidence(model, samples, tmp_path)
    again = load_samples(tmp_path)
    assert [list(sample) for sample in again] == [[name], [name]]
    assert all(np.array_equal(a[name], b[name]) for a, b in zip(samples, again, strict=True))


def test_an_artefact_whose_input_has_a_slash_verifies(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["a/b", "w"], ["y"], name="m")]
    folder = compile_net(net(tmp_path / "net.onnx", nodes, ["a/b"]), "fp16", tmp_path / "out")
    assert verify(folder).passed


def test_a_model_of_integer_outputs_is_judged_by_them(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"], name="m"),
        helper.make_node("ArgMax", ["z"], ["y"], name="arg", axis=1, keepdims=0),
    ]
    path = net(tmp_path / "net.onnx", nodes, ["x"], (TensorProto.INT64, [2]))
    folder = compile_net(path, "fp16", tmp_path / "out")
    half = next(check for check in prove(folder) if check.name == "float16 numbers")
    assert half.found.startswith("100.0% of the integers")


def test_samples_of_a_model_without_inputs(tmp_path: Path) -> None:
    model = load(str(net(tmp_path / "net.onnx", [helper.make_node("Relu", ["w"], ["y"])], [], WEIGHTS)))
    save_evidence(model, [{}, {}], tmp_path)
    assert load_samples(tmp_path) == [{}]
    assert Reference(tmp_path / REFERENCE).run({})["y"].shape == (4, 5)


def _truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _flipped(content: bytes) -> bytes:
    middle = content.index(b"PK\x01\x02") - 4
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [_truncated, _flipped, lambda _: b"", lambda _: b"PK"])
def test_damaged_samples_are_one_sentence(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="m")]
    model = load(str(net(tmp_path / "net.onnx", nodes, ["x"])))
    random = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    save_evidence(model, [{"x": random}], tmp_path)
    path = tmp_path / SAMPLES
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelError, match="cannot be read"):
        load_samples(tmp_path)


def test_samples_with_other_names_are_a_failed_check(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="m")]
    folder = compile_net(net(tmp_path / "net.onnx", nodes, ["x"]), "fp16", tmp_path / "out")
    arrays: dict[str, Any] = {"one/x": np.zeros((2, 4), np.float32)}
    with (folder / SAMPLES).open("wb") as file:
        np.savez(file, **arrays)
    checks = {check.name: check for check in verify(folder).checks}
    assert not checks["files"].passed
    assert not checks["target"].passed


def test_weights_beside_the_reference_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for models over 2 GB, whose weights one protobuf cannot hold."""
    monkeypatch.setattr("edgeq.compiler.model.EXTERNAL_DATA_THRESHOLD", 0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"], name="m"),
        helper.make_node("Relu", ["z"], ["y"], name="r"),
    ]
    folder = compile_net(net(tmp_path / "net.onnx", nodes, ["x"]), "fp16", tmp_path / "out")
    assert (folder / f"{REFERENCE}.data").exists()
    assert verify(folder).passed
    with InterpreterRunner(folder / PACKAGE) as runner:
        signature = runner.signature
    changed = load_reference(folder)
    before = differences(changed, folder / PACKAGE, signature, load_samples(folder)[:1])
    weight = changed.ir.graph.initializers["w"]
    weight.const_value = ir.tensor(2 * weight.const_value.numpy(), name="w")  # type: ignore[union-attr]
    after = differences(changed, folder / PACKAGE, signature, load_samples(folder)[:1])
    assert all(d.relative < 0.01 for d in before)
    assert [d.node.name for d in after if d.relative > 0.3][-1] == "r"


def test_infinities_that_are_equal_are_no_difference(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"], name="m"),
        helper.make_node("Exp", ["z"], ["e"], name="e"),
        helper.make_node("Tanh", ["e"], ["y"], name="t"),
    ]
    path = net(tmp_path / "net.onnx", nodes, ["x"])
    options = {"arithmetic": "float32"}
    folder = compile_net(path, "fp16", tmp_path / "out", target_options=options)
    with InterpreterRunner(folder / PACKAGE) as runner:
        signature = runner.signature
    sample: dict[str, Array] = {"x": np.full((2, 4), 1e4, np.float32)}
    model = load_reference(folder)
    assert Reference(folder / REFERENCE).run(sample)["y"].max() == 1
    found = differences(model, folder / PACKAGE, signature, [sample])
    assert [d.node.name for d in found if not d.relative < 1e-5] == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"inputs": [{}], "outputs": []}'])
def test_a_damaged_signature_is_one_sentence(text: str, tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="m")]
    folder = compile_net(net(tmp_path / "net.onnx", nodes, ["x"]), "fp16", tmp_path / "out")
    package = folder / PACKAGE
    spec = read_spec(package)
    spec.description.metadata.userDefined[SIGNATURE] = text
    path = package / "Data" / "com.apple.CoreML" / "model.mlmodel"
    path.write_bytes(spec.SerializeToString())
    with pytest.raises(ModelError, match="signature is damaged"):
        InterpreterRunner(package)
