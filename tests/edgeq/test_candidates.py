"""Which options and quantizers go to which target of a comparison."""

from __future__ import annotations

import pytest

from edgeq.candidates import Candidate, candidates
from edgeq.compiler.recipe import Recipe
from edgeq.errors import EdgeqError, UnknownOptionError, UsageError
from edgeq.targets.registry import FAMILIES, expand_targets, target_names

RECIPE = Recipe(scheme="int8-static")
CPU = ["onnxruntime", "openvino", "neural-compressor"]


def named(targets: list[str], options: dict[str, str], *quantizers: str) -> dict[str, dict[str, str]]:
    return {c.name: dict(c.options) for c in candidates(targets, quantizers, options, RECIPE)}


def test_names_lists_and_families_are_targets_once_each() -> None:
    assert expand_targets(["all-cpu"]) == CPU
    assert expand_targets(["openvino,onnxruntime", " coreml", "all-cpu"]) == [
        "openvino", "onnxruntime", "coreml", "neural-compressor",
    ]  # fmt: skip
    assert all(set(members) <= set(target_names()) for members in FAMILIES.values())


@pytest.mark.parametrize("text", ["toaster", "openvino,", "", "all-gpu"])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"Unknown target .*Several at once: all-cpu\."):
        expand_targets([text])


def test_an_option_goes_to_the_targets_that_have_it() -> None:
    found = named(["onnxruntime", "openvino", "coreml"], {"dimension.batch": "1", "mode": "throughput"})
    assert found == {
        "onnxruntime": {},
        "openvino": {"dimension.batch": "1", "mode": "throughput"},
        "coreml": {"dimension.batch": "1"},
    }


def test_a_prefix_sends_an_option_to_one_target() -> None:
    assert named(["openvino", "coreml"], {"openvino.dimension.batch": "1"}) == {
        "openvino": {"dimension.batch": "1"},
        "coreml": {},
    }
    assert named(["openvino"], {"openvino.mode": "latency"}) == {"openvino": {"mode": "latency"}}


def test_a_value_that_a_target_refuses_is_one_of_an_option_that_it_has() -> None:
    assert named(CPU, {"mode": "sideways"})["openvino"] == {"mode": "sideways"}


def test_quantizers_go_to_the_targets_that_can_choose() -> None:
    assert named(CPU, {"mode": "latency"}, "edgeq", "nncf") == {
        "onnxruntime": {},
        "openvino (edgeq)": {"mode": "latency", "quantizer": "edgeq"},
        "openvino (nncf)": {"mode": "latency", "quantizer": "nncf"},
        "neural-compressor": {},
    }
    assert named(CPU, {}, "nncf")["openvino"] == {"quantizer": "nncf"}
    assert Candidate("openvino", variant="nncf").suffix == "nncf-openvino"


@pytest.mark.parametrize(
    ("targets", "options", "quantizers", "error", "message"),
    [
        (CPU, {"sideways": "1"}, (), UnknownOptionError, "None of the targets .* has an option 'sideways'"),
        (CPU, {"openvino.foo": "1"}, (), UnknownOptionError, "'openvino' has no option 'foo'. It has: "),
        (CPU, {"coreml.mode": "1"}, (), UsageError, "is for 'coreml', which is not compiled for"),
        (CPU, {"mode": "latency", "openvino.mode": "latency"}, (), UsageError, "'mode' .* is given twice"),
        (["openvino"], {"openvino.mode": "latency", "mode": "latency"}, (), UsageError, "given twice"),
        (CPU, {"quantizer": "edgeq"}, ("nncf",), UsageError, "'quantizer' .* is given twice"),
        (CPU, {}, ("nncf", "nncf"), UsageError, "not each given once"),
        (CPU, {}, ("nncf", ""), UsageError, "not each given once"),
        (
            ["onnxruntime"], {}, ("nncf",), UnknownOptionError,
            "The target 'onnxruntime' has no option 'quantizer'. Leave out --quantizer",
        ),
        (["onnxruntime", "coreml"], {}, ("edgeq",), UnknownOptionError, "None of the targets"),
    ],
)  # fmt: skip
def test_what_is_ambiguous_or_useless_is_refused(
    targets: list[str],
    options: dict[str, str],
    quantizers: tuple[str, ...],
    error: type[EdgeqError],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        candidates(targets, quantizers, options, RECIPE)
