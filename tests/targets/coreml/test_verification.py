"""What is wrong with a package is found, and said where."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import edgeq
from edgeq.compiler.recipe import Override, Recipe
from edgeq.errors import ConfigError
from edgeq.targets.coreml.verification.contents import package_contents
from edgeq.targets.coreml.verification.foreign import verify_package
from edgeq.targets.coreml.verification.prove import prove, prove_again
from edgeq.verify import verify
from tests.support.coreml_artefacts import (
    PACKAGE,
    compile_net,
    conv_net,
    drop,
    edit_program,
    operation,
    scale_by,
    swap_weights,
    text_net,
)

ARITHMETICS = ("float16", "float32")


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("coreml")
    model = conv_net(folder / "net.onnx")
    return {
        arithmetic: compile_net(
            model, "int8-static", folder / arithmetic, target_options={"arithmetic": arithmetic}
        )
        for arithmetic in ARITHMETICS
    }


@pytest.fixture
def copy(artefacts: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    def make(arithmetic: str) -> Path:
        return Path(shutil.copytree(artefacts[arithmetic], tmp_path / arithmetic))

    return make


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_a_good_artefact_passes_every_check(artefacts: dict[str, Path], arithmetic: str) -> None:
    found = verify(artefacts[arithmetic])
    assert found.passed, found.checks
    assert found.how == "verified by interpreter, not run on Apple hardware"
    names = [check.name for check in found.checks]
    wanted = ["files", "program", "contents", "float32 numbers", "float16 numbers", "precision"]
    assert names == [name for name in wanted if arithmetic == "float16" or name != "float16 numbers"]


def test_a_quantized_net_is_exact_in_float32(artefacts: dict[str, Path]) -> None:
    exact = next(c for c in prove(artefacts["float32"]) if c.name == "float32 numbers")
    assert exact.passed
    # behind the last rounding the Gemm adds up in another order
    largest = float(exact.found.removeprefix("largest difference ").partition(" ")[0])
    assert largest <= 1e-6, exact.found


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("factor", [1.02, 0.98])
def test_a_mutated_scale_is_named(copy: Callable[[str], Path], arithmetic: str, factor: float) -> None:
    folder = copy(arithmetic)
    scale_by(folder, factor)
    program = prove_again(folder)[0]
    assert not program.passed
    assert "scale of quantize" in program.found or "const" in program.found, program.found
    assert not verify(folder).passed


def test_a_mutated_scale_changes_the_numbers(copy: Callable[[str], Path]) -> None:
    folder = copy("float32")
    scale_by(folder, 1.02)
    numbers = next(check for check in prove(folder) if check.name == "float32 numbers")
    assert not numbers.passed, numbers
    assert "first at QuantizeLinear" in numbers.found, numbers.found


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_swapped_weights_are_found_by_program_and_by_numbers(
    copy: Callable[[str], Path], arithmetic: str
) -> None:
    folder = copy(arithmetic)
    swap_weights(folder)
    failed = {check.name for check in prove_again(folder) if not check.passed}
    assert "program" in failed
    if arithmetic == "float32":
        assert "float32 numbers" in failed


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_a_dropped_operation_is_found_by_program_and_by_numbers(
    copy: Callable[[str], Path], arithmetic: str
) -> None:
    folder = copy(arithmetic)
    drop(folder, "relu")
    failed = {check.name for check in prove_again(folder) if not check.passed}
    assert "program" in failed
    assert failed & {"float32 numbers", "float16 numbers"}


def test_an_operation_whose_input_is_gone_is_a_damaged_package(copy: Callable[[str], Path]) -> None:
    folder = copy("float16")

    def remove(block: object) -> None:
        block.operations.remove(operation(block, "conv"))  # type: ignore[attr-defined]

    edit_program(folder, remove)
    found = verify(folder)
    assert not found.passed
    target = next(check for check in found.checks if check.name == "target")
    assert "'x' of operation" in target.found, target.found
    assert "which nothing computes" in target.found, target.found


def test_missing_evidence_is_one_sentence(copy: Callable[[str], Path]) -> None:
    folder = copy("float16")
    (folder / "samples.npz").unlink()
    failed = [check for check in verify(folder).checks if not check.passed]
    assert "samples.npz" in failed[0].found


def test_any_changed_byte_is_a_failed_check(copy: Callable[[str], Path]) -> None:
    folder = copy("float16")
    path = folder / PACKAGE / "Manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))
    assert [check.name for check in verify(folder).checks if not check.passed] == ["files"]


def test_a_package_alone_is_verified_against_its_onnx_model(
    artefacts: dict[str, Path], tmp_path: Path
) -> None:
    reference = artefacts["float32"] / "reference.onnx"
    how, checks = verify_package(artefacts["float32"] / PACKAGE, reference)
    assert how.startswith("verified by interpreter")
    assert [check.passed for check in checks] == [True]
    other = conv_net(tmp_path / "other.onnx", seed=5)
    _, checks = verify_package(artefacts["float32"] / PACKAGE, other)
    assert [check.passed for check in checks] == [False]


def test_nodes_that_were_asked_for_in_float32_stay_so_in_a_float16_package(tmp_path: Path) -> None:
    recipe = Recipe(scheme="fp16", overrides=(Override(match="op:Gemm", precision="fp32"),))
    model = conv_net(tmp_path / "net.onnx")
    result = edgeq.compile(str(model), target="coreml", recipe=recipe, output=tmp_path / "out", bench=None)
    actual = {node.name: node.actual for node in result.nodes}
    assert actual["head"] == "fp32"
    assert actual["conv1"] == actual["conv2"] == "fp16"
    assert verify(result.folder).passed


@pytest.mark.parametrize(
    "scheme", ["fp32", "fp16", "int8-weight", "int4-weight", "palettize-6", "palettize-4"]
)
@pytest.mark.parametrize("net", [conv_net, text_net])
def test_every_scheme_verifies_again(net: Callable[[Path], Path], scheme: str, tmp_path: Path) -> None:
    options = {} if net is conv_net else {"dimension.T": "1..16@8"}
    folder = compile_net(net(tmp_path / "net.onnx"), scheme, tmp_path / "out", target_options=options)
    found = verify(folder)
    assert found.passed, [check for check in found.checks if not check.passed]


def test_activations_without_zero_points_by_option(tmp_path: Path) -> None:
    model = conv_net(tmp_path / "net.onnx")
    options = {"activations": "symmetric"}
    folder = compile_net(model, "int8-static", tmp_path / "out", target_options=options)
    assert verify(folder).passed
    roundings = package_contents(folder / PACKAGE).roundings["quantize"]
    assert roundings["uint8"] > 0, "never negative behind a Relu"
    assert roundings["int8"] > 0
    with pytest.raises(ConfigError, match="has no effect with the scheme 'fp16'"):
        compile_net(model, "fp16", tmp_path / "other", target_options=options)
