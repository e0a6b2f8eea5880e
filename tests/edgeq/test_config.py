"""``edgeq.toml``: what it means, and what is refused in which words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeq.compiler.recipe import Override
from edgeq.config import load_config, read_preprocessing
from edgeq.errors import ConfigError, EdgeqError

FULL = """\
model = "nets/m.onnx"
output = "out/m"
overwrite = true
strict = true
threads = 2
task = "text-classification"
budgets = ["size <= 50%", "top1 >= 99%"]

[bench]
quick = true
parts = ["size", "accuracy"]
samples = 100
lm_eval_tasks = ["tasks/questions.yaml"]

[data]
calibration = "calib"
evaluation = "mypkg.data:evaluation"
metrics = ["top1"]
tokenizer = "tok/tokenizer.json"
max_length = 64
preprocess = { preset = "imagenet", resize = 232 }

[report]
junit = "junit.xml"
json = "/abs/check.json"

[[targets]]
scheme = "int8-static"
range_method = "percentile"
percentile = 99.9
exclude = ["/head/*"]
overrides = [{ match = "op:Gemm", precision = "int8" }]
budgets = ["size <= 30%"]

[[targets]]
name = "small"
target = "elsewhere"
scheme = "int4-weight"
block_size = 64
strict = false
"""


def _load(folder: Path, text: str) -> EdgeqError | None:
    path = folder / "edgeq.toml"
    path.write_text(text)
    try:
        load_config(path)
    except EdgeqError as error:
        return error
    return None


def test_everything_that_a_file_can_say(tmp_path: Path) -> None:
    path = tmp_path / "edgeq.toml"
    path.write_text(FULL)
    config = load_config(path)
    assert config.model == str(tmp_path / "nets" / "m.onnx")
    assert config.calibration == str(tmp_path / "calib")
    assert config.evaluation == "mypkg.data:evaluation"
    assert (config.overwrite, config.threads, config.task) == (True, 2, "text-classification")
    assert config.data_options.tokenizer == tmp_path / "tok" / "tokenizer.json"
    assert config.data_options.max_length == 64
    assert config.preprocessing is not None
    assert (config.preprocessing.resize, config.preprocessing.crop) == (232, "model")
    assert (config.junit, config.json_file) == (tmp_path / "junit.xml", Path("/abs/check.json"))
    assert (config.bench.parts, config.bench.samples) == (("size", "accuracy"), 100)
    assert config.bench.tasks == (str(tmp_path / "tasks" / "questions.yaml"),)
    first, second = config.targets
    assert (first.name, first.target, first.strict) == ("int8-static", "onnxruntime", True)
    assert first.output == tmp_path / "out" / "m-int8-static"
    assert (first.recipe.range_method, first.recipe.percentile) == ("percentile", 99.9)
    assert first.recipe.overrides == (
        Override(match="/head/*", precision="fp32"),
        Override(match="op:Gemm", precision="int8"),
    )
    assert (second.name, second.target, second.strict) == ("small", "elsewhere", False)
    assert second.recipe.block_size == 64


def test_a_targets_own_budget_replaces_the_files_on_the_same_metric(tmp_path: Path) -> None:
    (tmp_path / "edgeq.toml").write_text(FULL)
    first, second = load_config(tmp_path / "edgeq.toml").targets
    assert [str(b) for b in first.budgets] == ["top1 >= 99%", "size <= 30%"]
    assert [str(b) for b in second.budgets] == ["size <= 50%", "top1 >= 99%"]


def test_the_smallest_file(tmp_path: Path) -> None:
    (tmp_path / "edgeq.toml").write_text('model = "m.onnx"\n[[targets]]\nscheme = "fp32"\n')
    config = load_config(tmp_path / "edgeq.toml")
    assert config.targets[0].output == tmp_path / "build" / "m-fp32"
    assert (config.calibration, config.preprocessing, config.junit) == (None, None, None)


SMALL = 'model = "m.onnx"\n{}\n[[targets]]\nscheme = "int8-static"\n{}\n'
REFUSED = [
    ("model = ", "", "edgeq.toml is no valid TOML: Invalid value (at end of document)."),
    ('modle = "m"', "", "edgeq.toml: unknown key modle (and 2 more)."),
    (("threads = 0", ""), "", "edgeq.toml: threads = 0 is not valid."),
    (("[data]\ncalibraton = 'x'", ""), "Did you mean calibration?", "unknown key data.calibraton"),
    (("", "block = 32"), "Did you mean block_size?", "unknown key targets[1].block"),
    (
        ("", "block_size = 32"),
        "int8-weight, int4-weight",
        "block_size has no effect with scheme 'int8-static'",
    ),
    (("", "percentile = 99"), "", "percentile has no effect with range method 'auto'"),
    (
        ("", "range_method = 'max'"),
        "auto, minmax, percentile, entropy or mse",
        "targets[1].range_method = 'max'",
    ),
    (("", "budgets = ['size <= 1MB', 'top1']"), "", "targets[1].budgets[2]: 'top1' is no budget."),
    (("budgets = ['size >= 1MB']", ""), "Write size <= 1MB.", "budgets[1]: Budget 'size >= 1MB'"),
    (("[data]\npreprocess = 'imagnet'", ""), "Known presets", "data.preprocess: Unknown preprocessing"),
    (
        ("[data]\npreprocess = { mena = [0.5] }", ""),
        "Did you mean mean?",
        "data.preprocess: unknown key mena",
    ),
    (("[data]\npreprocess = { preset = 'x' }", ""), "Known presets", "unknown preset 'x'"),
    (("[bench]\nparts = ['latancy']", ""), "latency", "bench.parts[1] = 'latancy'"),
    (("", "name = '../up'"), "", "targets[1].name = '../up'"),
    (("", "[[targets]]\nscheme = 'int8-static'"), "own name", "targets[2] is the second target"),
    (("", "overrides = [{ match = 'a' }]"), "", "targets[1].overrides[1].precision is missing"),
]


@pytest.mark.parametrize(("case", "fix", "what"), REFUSED, ids=[r[2][:40] for r in REFUSED])
def test_what_is_refused(tmp_path: Path, case: str | tuple[str, str], fix: str, what: str) -> None:
    error = _load(tmp_path, case if isinstance(case, str) else SMALL.format(*case))
    assert error is not None
    assert error.exit_code == 2
    assert what in error.what
    assert "edgeq.toml" in error.what
    assert fix in (error.fix or "")


def test_no_targets_is_an_error(tmp_path: Path) -> None:
    error = _load(tmp_path, 'model = "m.onnx"\n')
    assert error is not None
    assert error.what == "edgeq.toml: targets is missing."


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "edgeq.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "edgeq.toml")


@pytest.mark.parametrize(
    ("name", "text"),
    [("p.json", '{"preset": "imagenet", "crop": 200}'), ("p.toml", 'preset = "imagenet"\ncrop = 200\n')],
)
def test_preprocessing_from_a_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    found = read_preprocessing(str(tmp_path / name))
    assert (found.crop, found.channels) == (200, "rgb")


def test_a_preprocessing_file_with_an_unknown_field(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"resise": 3}')
    with pytest.raises(ConfigError, match=r"p\.json: unknown key resise\. Did you mean resize\?"):
        read_preprocessing(str(tmp_path / "p.json"))


SEVERAL = """\
model = "m.onnx"
output = "out/m"
[[targets]]
name = "small"
target = {target}
scheme = "int8-static"
budgets = ["size <= 30%"]
options = {{ {options} }}
"""


@pytest.mark.parametrize("target", ['"onnxruntime,openvino"', '["onnxruntime", "openvino"]'])
def test_a_section_may_name_several_targets(tmp_path: Path, target: str) -> None:
    path = tmp_path / "edgeq.toml"
    path.write_text(
        SEVERAL.format(target=target, options='"dimension.batch" = 4, "openvino.mode" = "latency"')
    )
    config = load_config(path)
    assert [(e.name, e.target, dict(e.options)) for e in config.targets] == [
        ("small", "onnxruntime", {}),
        ("small", "openvino", {"dimension.batch": "4", "mode": "latency"}),
    ]
    assert {e.output for e in config.targets} == {tmp_path / "out" / "m-small"}
    path.write_text(SEVERAL.format(target='"all-cpu"', options=""))
    targets = [e.target for e in load_config(path).targets]
    assert targets == ["onnxruntime", "openvino", "neural-compressor"]


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("4", "", r"targets\[1\]: The target is 4\. Write \"onnxruntime\""),
        ("[]", "", r"The target is \[\]"),
        ('"onnxruntime,openvino"', 'sideways = "1"', "None of the targets .* has an option 'sideways'"),
        ('"onnxruntime,openvino"', '"coreml.mode" = "1"', "which is not compiled for"),
    ],
)
def test_a_section_of_several_targets_is_refused_in_words(
    tmp_path: Path, target: str, options: str, message: str
) -> None:
    error = _load(tmp_path, SEVERAL.format(target=target, options=options))
    assert error is not None
    assert re.search(message, str(error)), str(error)


def test_targets_of_different_sections_must_not_share_a_folder(tmp_path: Path) -> None:
    text = SEVERAL.format(target='"all-cpu"', options="")
    again = '[[targets]]\nname = "small"\ntarget = "openvino"\nscheme = "fp16"\n'
    error = _load(tmp_path, text + again)
    assert "targets[2] is the second target 'openvino' called 'small'" in str(error)
