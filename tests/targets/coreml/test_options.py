"""Options of the target coreml: from KEY=VALUE texts, one clear sentence for each mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeq.compiler.recipe import Recipe
from edgeq.errors import ConfigError, TargetError
from edgeq.targets.coreml.options import CoreMLOptions, ImageInput, parse_options, read_class_labels
from edgeq.targets.coreml.target import CoreMLTarget
from edgeq.targets.dimensions import Dimension


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", Dimension(1, 1)),
        ("1..128", Dimension(1, 128)),
        ("1..128@64", Dimension(1, 128, default=64)),
        ("7..7", Dimension(7, 7)),
        ("128,32,64", Dimension(32, 128, (32, 64, 128))),
        ("32, 64@64", Dimension(32, 64, (32, 64), 64)),
    ],
)
def test_a_dimension_is_fixed_a_range_or_a_list(text: str, expected: Dimension) -> None:
    assert parse_options({"dimension.N": text}).dimensions == {"N": expected}


@pytest.mark.parametrize(
    "text", ["", "0", "x", "5..1", "1..", "1..4@9", "1..4@²", "2,4@3", "1..4@", "-1", "1.5", "1;2"]
)
def test_other_dimensions_are_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match="'N'"):
        parse_options({"dimension.N": text})


def test_the_default_size_is_the_smallest_unless_given() -> None:
    sizes = parse_options({"dimension.a": "2..9", "dimension.b": "2..9@4"}).dimensions
    assert (sizes["a"].initial, sizes["b"].initial) == (2, 4)


@pytest.mark.parametrize(
    ("scheme", "ios", "arithmetic"),
    [
        ("fp32", 16, "float32"),
        ("fp16", 16, "float16"),
        ("int8-weight", 16, "float16"),
        ("palettize-4", 16, "float16"),
        ("palettize-6", 16, "float16"),
        ("int8-static", 17, "float16"),
        ("int4-weight", 18, "float16"),
    ],
)
def test_the_scheme_decides_what_is_not_given(scheme: str, ios: int, arithmetic: str) -> None:
    options = CoreMLOptions()
    assert (options.ios(scheme), options.arithmetic_of(scheme)) == (ios, arithmetic)


@pytest.mark.parametrize(("name", "ios"), [("iOS18", 18), ("macos14", 17), ("watchOS9", 16), ("tvOS17", 17)])
def test_every_name_of_a_generation_is_known(name: str, ios: int) -> None:
    assert parse_options({"deployment-target": name}).ios("fp16") == ios


@pytest.mark.parametrize(
    ("pairs", "scheme", "what"),
    [
        ({"deployment_target": "iOS16"}, "int8-static", "quantized activations"),
        ({"deployment_target": "macOS14"}, "int4-weight", "4-bit weights"),
        ({"deployment_target": "iOS17", "palette-group": "16"}, "palettize-4", "per group of channels"),
    ],
)
def test_a_target_that_is_too_low_is_refused_with_what_it_lacks(
    pairs: dict[str, str], scheme: str, what: str
) -> None:
    with pytest.raises(TargetError, match=what) as caught:
        parse_options(pairs).ios(scheme)
    assert pairs["deployment_target"] in str(caught.value)


def test_groups_of_channels_raise_the_lowest_target() -> None:
    options = parse_options({"palette_group": "16"})
    assert (options.ios("palettize-4"), options.ios("fp16")) == (18, 16)


def test_image_inputs_take_fractions_and_a_bias_per_channel() -> None:
    text = "data: color=BGR scale=1/255 bias=-0.485,-0.456,-0.406; mask: color=grayscale bias=0.5"
    first, second = parse_options({"image_input": text}).image_input
    assert first == ImageInput(name="data", color="BGR", scale=1 / 255, bias=(-0.485, -0.456, -0.406))
    assert second == ImageInput(name="mask", color="grayscale", bias=(0.5,))
    assert parse_options({"image_input": "data"}).image_input == (ImageInput(name="data"),)


def test_names_with_colons_are_no_problem() -> None:
    assert parse_options({"image_input": "a:0: color=RGB"}).image_input[0].name == "a:0"


@pytest.mark.parametrize(
    "text",
    [
        "data: color=CMYK",
        "data: scale=1/0",
        "data: scale=inf",
        "data: bias=1,2",
        "data: color=grayscale bias=1,2,3",
        "data: size=3",
        "data: RGB",
        ": color=RGB",
    ],
)
def test_other_images_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="image_input"):
        parse_options({"image_input": text})


def test_metadata_and_entries_of_the_user() -> None:
    options = parse_options({"author": "Ada", "license": "MIT", "user.team": "vision", "version": "2"})
    assert (options.author, options.license, options.version) == ("Ada", "MIT", "2")
    assert options.user == {"team": "vision"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("colour", "red"),
        ("dimension", "1"),
        ("user.", "x"),
        ("author.first", "Ada"),
        ("arithmetic", "float64"),
        ("compute_units", "gpu"),
        ("deployment_target", "iOS15"),
        ("palette_group", "0"),
        ("class_labels", " "),
        ("predicted_feature_name", "a b"),
    ],
)
def test_mistakes_are_named(key: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_options({key: value})
    assert key.rstrip(".") in str(caught.value) or value in str(caught.value)
    assert caught.value.fix


def test_class_labels_are_lines_or_a_json_list(tmp_path: Path) -> None:
    lines, listed = tmp_path / "labels.txt", tmp_path / "labels.json"
    lines.write_text("cat\n dog \n\n")
    listed.write_text(json.dumps(["cat", "dog"]))
    assert read_class_labels(lines) == read_class_labels(listed) == ("cat", "dog")


@pytest.mark.parametrize("text", ["", "\n\n", "a\nb\na", "[1, 2]", '["a"', "[]"])
def test_other_class_labels_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"labels\.txt"):
        read_class_labels(path)


def test_a_missing_file_of_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_class_labels(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("scheme", "pairs", "message"),
    [
        ("fp16", {"palette_group": "8"}, "'palette_group' has no effect with the scheme 'fp16'"),
        ("fp16", {"predicted_feature_name": "animal"}, "'predicted_feature_name' has no effect without"),
        ("fp16", {"probabilities_output": "y"}, "'probabilities_output' has no effect without"),
    ],
)
def test_options_that_would_do_nothing_are_refused(scheme: str, pairs: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CoreMLTarget().options(pairs, Recipe.model_validate({"scheme": scheme}))


def test_options_that_do_something_are_taken() -> None:
    pairs = {"class_labels": "labels.txt", "predicted_feature_name": "animal", "palette_group": "8"}
    options = CoreMLTarget().options(pairs, Recipe(scheme="palettize-4"))
    assert (options.palette_group, options.predicted_feature_name) == (8, "animal")
