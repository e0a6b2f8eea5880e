"""Packages on disk: numbers, bytes, interface, metadata; and nothing half-written."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgeq.compiler.model import Model
from edgeq.errors import TargetError
from edgeq.targets.coreml.frontend.lower import lower
from edgeq.targets.coreml.interpreter.program import read_package
from edgeq.targets.coreml.package.folder import read_spec
from edgeq.targets.coreml.package.metadata import read_metadata
from edgeq.targets.coreml.package.passes import PASSES
from edgeq.targets.coreml.package.write import write_package
from edgeq.targets.coreml.verification.contents import package_contents
from tests.support.coreml_packages import digests, package, run_package
from tests.support.static_models import graph, normal, run


def classifier(batch: int | str = 1) -> Model:
    """Conv, Relu, pooling, Gemm and Softmax of 5 classes on [batch, 3, 8, 8]."""
    return graph(
        [
            ("Conv", ["x", "w", "b"], ["c"], {"pads": [1, 1, 1, 1]}),
            ("Relu", ["c"], ["r"], {}),
            ("GlobalAveragePool", ["r"], ["g"], {}),
            ("Flatten", ["g"], ["f"], {}),
            ("Gemm", ["f", "w2"], ["z"], {}),
            ("Softmax", ["z"], ["y"], {}),
        ],
        {"x": [batch, 3, 8, 8]},
        ["y"],
        {"w": normal(6, 3, 3, 3), "b": normal(6), "w2": normal(6, 5)},
    )


def two_inputs() -> Model:
    return graph([("Add", ["a", "b"], ["y"], {})], {"a": ["N", 4], "b": ["N", 4]}, ["y"], {})


def operations(path: Path) -> list[str]:
    return [operation.type for operation in read_package(path).main.block.operations]


# --- numbers ------------------------------------------------------------------------------------------------


def test_a_float32_package_computes_what_the_model_does(tmp_path: Path) -> None:
    model, x = classifier(), normal(1, 3, 8, 8, seed=3)
    found = run_package(package(model, tmp_path / "m.mlpackage", arithmetic="float32"), x=x)
    assert np.abs(found[0] - run(model, {"x": x})[0]).max() < 1e-6


def test_float16_is_the_arithmetic_of_every_operation_in_between(tmp_path: Path) -> None:
    path = package(classifier(), tmp_path / "m.mlpackage")
    types = {
        r.type.dtype for o in read_package(path).main.block.operations for r in o.outputs if o.type == "conv"
    }
    assert types == {"float16"}
    x = normal(1, 3, 8, 8, seed=3)
    assert np.abs(run_package(path, x=x)[0] - run(classifier(), {"x": x})[0]).max() < 2e-3


def test_the_root_of_a_square_is_no_identity(tmp_path: Path) -> None:
    """coremltools' own pipeline drops both, for negative numbers too."""
    model = graph(
        [("Pow", ["x", "two"], ["s"], {}), ("Sqrt", ["s"], ["y"], {})],
        {"x": [4]},
        ["y"],
        {"two": np.array(2, np.float32)},
    )
    x = np.array([-3, -0.5, 0, 2], np.float32)
    path = package(model, tmp_path / "m.mlpackage", arithmetic="float32")
    np.testing.assert_allclose(run_package(path, x=x)[0], np.abs(x), rtol=1e-6)


def test_masked_infinities_stay_infinite(tmp_path: Path) -> None:
    """coremltools' own pipeline adds the mask, and -inf + inf is NaN."""
    mask = np.array([True, False, True, False])
    model = graph(
        [("Where", ["mask", "inf", "x"], ["y"], {})],
        {"x": [4]},
        ["y"],
        {"mask": mask, "inf": np.full(4, np.inf, np.float32)},
    )
    x = np.array([-np.inf, -np.inf, 1, 2], np.float32)
    path = package(model, tmp_path / "m.mlpackage", arithmetic="float32")
    np.testing.assert_array_equal(run_package(path, x=x)[0], np.where(mask, np.inf, x))


def test_gathered_integers_keep_32_bits(tmp_path: Path) -> None:
    """coremltools' own pipeline narrows them to 16 bits."""
    model = graph(
        [("Gather", ["x", "i"], ["y"], {"axis": 0})],
        {"x": [3]},
        ["y"],
        {"i": np.array([2, 0])},
        types={"x": onnx.TensorProto.INT32, "y": onnx.TensorProto.INT32},
    )
    x = np.array([100_000, 2, -70_000], np.int32)
    path = package(model, tmp_path / "m.mlpackage")
    np.testing.assert_array_equal(run_package(path, x=x)[0], [-70_000, 100_000])


def test_int8_weights_stay_int8_in_the_file(tmp_path: Path) -> None:
    weights = np.arange(-100, 100, dtype=np.int8).reshape(20, 10)
    model = graph(
        [("DequantizeLinear", ["q", "s"], ["w"], {"axis": 1}), ("MatMul", ["x", "w"], ["y"], {})],
        {"x": [3, 20]},
        ["y"],
        {"q": weights, "s": np.full(10, 0.25, np.float32)},
    )
    path, x = package(model, tmp_path / "m.mlpackage"), normal(3, 20)
    assert "constexpr_affine_dequantize" in operations(path)
    assert np.abs(run_package(path, x=x)[0] - x @ (weights * 0.25)).max() < 0.1
    stored = package_contents(path).weights
    assert stored["int8"].tensors == 1
    assert sum(found.bytes for name, found in stored.items() if name != "int8") <= 20  # a bias of zeros


def test_what_belongs_together_is_fused(tmp_path: Path) -> None:
    model = graph(
        [
            ("MatMul", ["x", "w"], ["m"], {}),
            ("Add", ["m", "b"], ["a"], {}),
            ("Sigmoid", ["a"], ["s"], {}),
            ("Mul", ["a", "s"], ["y"], {}),
        ],
        {"x": [2, 16]},
        ["y"],
        {"w": normal(16, 16), "b": normal(16)},
    )
    found = [o for o in operations(package(model, tmp_path / "m.mlpackage")) if o not in ("const", "cast")]
    assert found == ["linear", "silu"]


def test_passes_that_change_numbers_are_not_run() -> None:
    wrong = {
        "mil_backend::fuse_pow2_sqrt",
        "common::add_int16_cast",
        "common::select_optimization",
        "common::divide_to_multiply",
        "common::distributive_quantized_binary_op_scale_normalization",
        "common::nullify_redundant_quantization_zero_point",
    }
    assert not wrong & set(PASSES)


def test_outputs_of_one_operation_keep_their_names(tmp_path: Path) -> None:
    model = graph(
        [
            ("Split", ["x"], ["first", "second"], {"num_outputs": 2, "axis": 1}),
            ("Relu", ["first"], ["r"], {}),
            ("Mul", ["r", "second"], ["y"], {}),
        ],
        {"x": [2, 8]},
        ["y"],
        {},
    )
    path = package(model, tmp_path / "m.mlpackage")
    split = next(o for o in read_package(path).main.block.operations if o.type == "split")
    assert [result.name for result in split.outputs] == ["first_cast_fp16", "second_cast_fp16"]


# --- bytes --------------------------------------------------------------------------------------------------


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    pairs = {"dimension.batch": "1..4", "author": "Ada", "user.a": "1", "user.b": "2"}
    first = package(classifier("batch"), tmp_path / "a.mlpackage", pairs)
    package(two_inputs(), tmp_path / "other.mlpackage", {"dimension.N": "1"})
    second = package(classifier("batch"), tmp_path / "b.mlpackage", pairs)
    assert digests(first) == digests(second)
    assert len(digests(first)) == 3


def test_other_weights_give_other_bytes(tmp_path: Path) -> None:
    changed = classifier()
    weight = changed.ir.graph.initializers["w"]
    weight.const_value = onnx_tensor(weight.const_value.numpy() + 1)  # type: ignore[union-attr]
    first = digests(package(classifier(), tmp_path / "a.mlpackage"))
    assert first != digests(package(changed, tmp_path / "b.mlpackage"))


def onnx_tensor(array: Any) -> Any:
    import onnx_ir as ir

    return ir.tensor(array, name="w")


def test_writing_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    level = logging.getLogger("coremltools").level
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        package(classifier(), tmp_path / "m.mlpackage")
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("coremltools").level == level


# --- never half-written -------------------------------------------------------------------------------------


def test_an_existing_package_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = package(classifier(), tmp_path / "m.mlpackage")
    (path / "leftover").write_text("old")
    package(two_inputs(), path, {"dimension.N": "1"})
    assert not (path / "leftover").exists()
    assert "add" in operations(path)
    assert [item.name for item in tmp_path.iterdir()] == ["m.mlpackage"]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = package(classifier(), tmp_path / "m.mlpackage")
    before = digests(path)
    with pytest.raises(TargetError, match="no input 'z'"):
        package(classifier(), path, {"image_input": "z"})
    assert digests(path) == before
    assert [item.name for item in tmp_path.iterdir()] == ["m.mlpackage"]


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TargetError, match="cannot be written"):
        package(classifier(), tmp_path / "file" / "m.mlpackage")


def test_a_program_that_coremltools_rejects_is_one_sentence(tmp_path: Path) -> None:
    lowered = lower(classifier(), ios=17)
    lowered.program.functions["main"].set_outputs([])
    lowered.program.functions["main"].outputs.append("no variable")
    with pytest.raises(TargetError, match="cannot be written"):
        write_package(lowered, tmp_path / "m.mlpackage", ios=17)
    assert list(tmp_path.iterdir()) == []


# --- interface ----------------------------------------------------------------------------------------------


def test_a_range_is_in_the_package_with_its_default(tmp_path: Path) -> None:
    path = package(classifier("batch"), tmp_path / "m.mlpackage", {"dimension.batch": "1..8@4"})
    (found,) = read_package(path).inputs
    assert found.shape == (4, 3, 8, 8)
    assert found.ranges == ((1, 8), (3, 3), (8, 8), (8, 8))
    x = normal(6, 3, 8, 8)
    assert run_package(path, x=x)[0].shape == (6, 5)


def test_single_sizes_are_listed_the_default_first(tmp_path: Path) -> None:
    path = package(classifier("batch"), tmp_path / "m.mlpackage", {"dimension.batch": "1,2,4@2"})
    (found,) = read_package(path).inputs
    assert found.shapes == ((2, 3, 8, 8), (1, 3, 8, 8), (4, 3, 8, 8))
    assert found.shape == (2, 3, 8, 8)


def test_one_symbol_stands_for_the_same_size_of_both_inputs(tmp_path: Path) -> None:
    path = package(two_inputs(), tmp_path / "m.mlpackage", {"dimension.N": "1..3"})
    assert [item.ranges for item in read_package(path).inputs] == [((1, 3), (4, 4))] * 2
    a, b = normal(3, 4), normal(3, 4, seed=1)
    np.testing.assert_allclose(run_package(path, a=a, b=b)[0], a + b, atol=4e-3)


def test_single_sizes_of_two_inputs_need_ios18(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="needs iOS18"):
        package(two_inputs(), tmp_path / "m.mlpackage", {"dimension.N": "1,2"})
    package(two_inputs(), tmp_path / "m.mlpackage", {"dimension.N": "1,2"}, ios=18)


def test_a_range_and_single_sizes_in_one_input_are_refused(tmp_path: Path) -> None:
    model = graph([("Relu", ["x"], ["y"], {})], {"x": ["N", "M"]}, ["y"], {})
    with pytest.raises(TargetError, match="a range and one with single sizes"):
        package(model, tmp_path / "m.mlpackage", {"dimension.N": "1,2", "dimension.M": "1..4"})


def test_more_shapes_than_core_ml_takes_are_refused(tmp_path: Path) -> None:
    model = graph([("Relu", ["x"], ["y"], {})], {"x": ["N", "M"]}, ["y"], {})
    sizes = ",".join(str(size) for size in range(1, 13))
    with pytest.raises(TargetError, match="144 shapes"):
        package(model, tmp_path / "m.mlpackage", {"dimension.N": sizes, "dimension.M": sizes})


@pytest.mark.parametrize(("color", "channels"), [("RGB", 3), ("BGR", 3), ("grayscale", 1)])
def test_an_image_is_declared_with_its_color(color: str, channels: int, tmp_path: Path) -> None:
    model = graph([("Relu", ["x"], ["y"], {})], {"x": [1, channels, 6, 4]}, ["y"], {})
    bias = ",".join(["-1"] * channels)
    pairs = {"image_input": f"x: color={color} scale=1/127.5 bias={bias}"}
    path = package(model, tmp_path / "m.mlpackage", pairs)
    image = read_spec(path).description.input[0].type.imageType
    assert (image.width, image.height) == (4, 6)
    assert image.ColorSpace.Name(image.colorSpace) == color.upper()
    assert operations(path).count("mul") == 1


@pytest.mark.parametrize(
    ("shape", "color"), [([1, 4, 8, 8], "RGB"), ([2, 3, 8, 8], "BGR"), ([1, 3, 8], "RGB")]
)
def test_other_inputs_cannot_be_images(shape: list[int], color: str, tmp_path: Path) -> None:
    model = graph([("Relu", ["x"], ["y"], {})], {"x": shape}, ["y"], {})
    with pytest.raises(TargetError, match=f"cannot be a {color} image"):
        package(model, tmp_path / "m.mlpackage", {"image_input": f"x: color={color}"})


def labels(folder: Path, count: int) -> str:
    path = folder / "labels.txt"
    path.write_text("\n".join(f"class {index}" for index in range(count)))
    return str(path)


def test_a_classifier_names_its_classes(tmp_path: Path) -> None:
    pairs = {"class_labels": labels(tmp_path, 5), "predicted_feature_name": "animal"}
    path, x = package(classifier(), tmp_path / "m.mlpackage", pairs), normal(1, 3, 8, 8)
    description = read_spec(path).description
    assert description.predictedFeatureName == "animal"
    assert description.predictedProbabilitiesName == "animal_probs"
    kinds = {output.name: output.type.WhichOneof("Type") for output in description.output}
    assert kinds == {"animal": "stringType", "animal_probs": "dictionaryType"}
    assert np.abs(run_package(path, x=x)[0] - run(classifier(), {"x": x})[0]).max() < 2e-3


@pytest.mark.parametrize(
    ("pairs", "what"),
    [
        ({}, "4 class labels do not fit"),
        ({"probabilities_output": "z"}, "no output 'z'"),
        ({"dimension.batch": "1..2"}, "do not fit"),
    ],
)
def test_labels_that_do_not_fit_are_refused(pairs: dict[str, str], what: str, tmp_path: Path) -> None:
    model = classifier("batch" if "dimension.batch" in pairs else 1)
    count = 5 if "dimension.batch" in pairs else 4
    with pytest.raises(TargetError, match=what):
        package(model, tmp_path / "m.mlpackage", {"class_labels": labels(tmp_path, count), **pairs})


def test_a_taken_name_of_the_class_is_refused(tmp_path: Path) -> None:
    pairs = {"class_labels": labels(tmp_path, 5), "predicted_feature_name": "x"}
    with pytest.raises(TargetError, match="predicted class is called 'x'"):
        package(classifier(), tmp_path / "m.mlpackage", pairs)


# --- metadata -----------------------------------------------------------------------------------------------


def test_metadata_is_read_back(tmp_path: Path) -> None:
    pairs = {"author": "Ada", "license": "MIT", "description": "Digits", "version": "3", "user.team": "x"}
    recipe = {"scheme": "fp16", "overrides": []}
    path = package(classifier(), tmp_path / "m.mlpackage", pairs, source_sha256="ab" * 32, recipe=recipe)
    found = read_metadata(path)
    assert (found.author, found.license, found.description, found.version) == ("Ada", "MIT", "Digits", "3")
    assert found.recipe == recipe
    assert found.user["team"] == "x"
    assert found.user["com.edgeq.source.sha256"] == "ab" * 32
    assert found.signature == lower(classifier(), ios=17).signature
    assert not any("date" in key for key in found.user)


@pytest.mark.parametrize("damage", ["", "{}", "no json"])
def test_what_is_no_package_is_one_sentence(damage: str, tmp_path: Path) -> None:
    path = package(classifier(), tmp_path / "m.mlpackage")
    (path / "Manifest.json").write_text(damage)
    with pytest.raises(TargetError, match="no readable Core ML package"):
        read_metadata(path)


def test_coremltools_reads_the_package(tmp_path: Path) -> None:
    from edgeq.targets.coreml.toolkit import coremltools

    path = package(classifier(), tmp_path / "m.mlpackage", {"author": "Ada"})
    model = coremltools().models.MLModel(str(path), skip_model_load=True)
    assert model.author == "Ada"
    assert Path(model.weights_dir).is_dir()
